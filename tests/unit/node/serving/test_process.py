"""A started server ends with the run, however the run ends. Every process here writes its id into a file."""

import getpass
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.node.serving.process import LOG, ServerProcess
from benchmark.node.watch.oom import OomWatch

# A shell, a child, a grandchild, and one that has left the process group as daemons do. `%s`: where the ids go.
FAMILY = (
    "cd %s; sleep 1000 & echo $! >child; (sleep 1000 & echo $! >grandchild; wait) & "
    "setsid sh -c 'echo $$ >daemon; exec sleep 1000' & echo $$ >shell; wait"
)
# Who sent a SIGKILL that the kernel did not.
NOBODY = OomWatch().killer()
STUBBORN = "cd %s; trap '' TERM; echo $$ >shell; while :; do sleep 0.1; done"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ids(directory: Path, *names: str) -> list[int]:
    """Return the ids once all are written."""
    paths = [directory / name for name in names]
    until(lambda: all(path.exists() and path.read_text().endswith("\n") for path in paths))
    return [int(path.read_text()) for path in paths]


def alive(process: int) -> bool:
    """Return whether it runs; whoever is dead and waited for by nobody is not alive."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("stops", [False, True])
def test_when_it_ended_is_noted_before_it_is_cleaned_up(tmp_path: Path, stops: bool) -> None:
    """Its children may take long to end; those of servers on other nodes that need it fail meanwhile."""
    stubborn = f"(trap '' TERM; echo $$ >{tmp_path}/child; while :; do sleep 0.1; done) & "
    server = ServerProcess(f"{stubborn} sleep {1000 if stops else 0}", tmp_path, grace_s=2)
    ids(tmp_path, "child")
    began_ns = time.time_ns()
    if stops:
        server.stop()
    until(lambda: server.ended() is not None)
    ended_ns = int((tmp_path / "server_ended").read_text())
    assert (time.time_ns() - ended_ns) / 1e9 >= 2
    assert ended_ns >= began_ns or not stops


@pytest.mark.parametrize(
    ("command", "names"), [(FAMILY, ("shell", "child", "grandchild", "daemon")), (STUBBORN, ("shell",))]
)
def test_stop_leaves_nothing(tmp_path: Path, command: str, names: tuple[str, ...]) -> None:
    server = ServerProcess(command % tmp_path, tmp_path, grace_s=0.5)
    family = ids(tmp_path, *names)
    assert all(map(alive, family))
    assert server.ended() is None
    server.stop()
    assert not any(map(alive, family))
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path, number: int) -> None:
    code = (
        "import sys, time; from pathlib import Path; from benchmark.node.serving.process import ServerProcess\n"
        "ServerProcess(sys.argv[1], Path(sys.argv[2]), grace_s=0.5); time.sleep(1000)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, FAMILY % tmp_path, str(tmp_path)])
    family = ids(tmp_path, "shell", "child", "grandchild", "daemon")
    assert all(map(alive, family))
    run.send_signal(number)
    run.wait()
    until(lambda: not any(map(alive, family)))


def test_shared_memory_goes_with_a_server_that_has_to_be_killed(tmp_path: Path) -> None:
    """Python has a process that removes it once all who shared it are gone: killed with them it could not."""
    program = (
        "import signal, time; from multiprocessing.shared_memory import SharedMemory\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); shared = SharedMemory(create=True, size=64)\n"
        f"open('{tmp_path}/shared', 'w').write(shared.name + chr(10)); time.sleep(1000)"
    )
    server = ServerProcess(shlex.join([sys.executable, "-c", program]), tmp_path, grace_s=0.5)
    until(lambda: (tmp_path / "shared").exists() and (tmp_path / "shared").read_text().endswith("\n"))
    shared = Path("/dev/shm", (tmp_path / "shared").read_text().strip())
    assert shared.exists()
    server.stop()
    assert not shared.exists()


def test_what_a_server_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    server = ServerProcess(f"cd {tmp_path}; sleep 1000 & echo $! >child; exit 0", tmp_path, grace_s=0.5)
    (child,) = ids(tmp_path, "child")
    until(lambda: server.ended() is not None)
    assert not alive(child)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo one; echo two >&2; exit 7", f"ended with exit code 7. The end of {LOG}: one | two"),
        ("kill -9 $$", f"was ended by signal 9{NOBODY}. {LOG} is empty."),
        ("no-such-command", "exit code 127"),
        ("printf '%0500d\\n%0500d\\n' 1 2; exit 1", f"The end of {LOG}: {2:0500}"),  # whole lines
    ],
)
def test_an_end_is_reported_with_the_logs_last_words(tmp_path: Path, command: str, said: str) -> None:
    server = ServerProcess(command, tmp_path)
    until(lambda: server.ended() is not None)
    assert said in str(server.ended())


def test_the_first_error_is_reported_beside_the_end(tmp_path: Path) -> None:
    words = "(EngineCore pid=7) ERROR 11-24 [core.py:1] ValueError: Free memory on device is too little."
    more = "echo 'RuntimeError: it failed'; for line in 1 2 3 4 5; do echo $line; done"
    server = ServerProcess(f"echo '{words}'; {more}; exit 1", tmp_path, name="vLLM")
    until(lambda: server.ended() is not None)
    reported = f"vLLM ended with exit code 1. The first error in {LOG}: {words} The end of {LOG}: 1 | 2 | 3 | 4 | 5"
    assert server.ended() == reported


# As vLLM 0.32 wrote it, without the frames.
CORE = "(EngineCore pid=2) ERROR 11-30 01:38:02 [core.py:1510]"
NO_SHARD = f"""\
(APIServer pid=1) INFO 11-30 01:38:00 [model.py:733] Resolved architecture: LlamaForCausalLM
(Worker pid=3) ERROR 11-30 01:38:01 [multiproc_executor.py:953] FileNotFoundError: it is missing
(EngineCore pid=2) INFO 11-30 01:38:01 [multiproc_executor.py:479] [shutdown] Executor: waiting for worker exit count=0
{CORE} EngineCore failed to start.
{CORE} Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for \
root cause.
Process EngineCore:
FileNotFoundError: it is missing
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""


def test_beside_the_first_error_is_what_says_more(tmp_path: Path) -> None:
    (tmp_path / "said").write_text(NO_SHARD)
    server = ServerProcess(f"cat {tmp_path}/said; exit 1", tmp_path, name="vLLM")
    until(lambda: server.ended() is not None)
    assert server.ended() == (
        f"vLLM ended with exit code 1. The first error in {LOG}: (Worker pid=3) ERROR 11-30 01:38:01 "
        "[multiproc_executor.py:953] FileNotFoundError: it is missing The end of endpoint.log: "
        f"{CORE} EngineCore failed to start."
    )


def test_what_came_before_the_only_error_is_not_told(tmp_path: Path) -> None:
    server = ServerProcess("echo usage; echo 'vllm: error: unrecognized arguments: --no'; exit 2", tmp_path)
    until(lambda: server.ended() is not None)
    assert str(server.ended()).endswith(
        "code 2. The first error in endpoint.log: vllm: error: unrecognized arguments: --no"
    )


def test_what_a_server_that_goes_on_said_last_is_told(tmp_path: Path) -> None:
    said = "INFO 11-30 01:38:02 [core.py:1] Capturing graphs"
    server = ServerProcess(f"echo 'ImportError: no flash'; echo '{said}'; exec sleep 1000", tmp_path)
    until(lambda: said in server.last_words())
    server.stop()


def test_the_first_error_is_found_in_a_coloured_log(tmp_path: Path) -> None:
    lines = (
        r"\033[33mWARNING\033[0m ImportError: no flash_attn\n\033[1;36m(Core pid=7)\033[0;0m ValueError: too little\n"
    )
    server = ServerProcess(f"printf '{lines}'; exit 1", tmp_path)
    until(lambda: server.ended() is not None)
    assert f"The first error in {LOG}: (Core pid=7) ValueError: too little" in str(server.ended())
    assert "\033" not in str(server.ended())


def test_a_part_that_ended_without_a_word_is_suspected(tmp_path: Path) -> None:
    server = ServerProcess("echo 'RuntimeError: it failed. See root cause above.'; exit 1", tmp_path)
    until(lambda: server.ended() is not None)
    assert str(server.ended()).endswith("No line says why: one of its processes may have been killed (see dmesg).")


def test_a_part_that_the_kernel_killed_is_reported(little_memory: Path, tmp_path: Path) -> None:
    """The largest process of a server is not the one whose end is seen."""
    code = (
        "import sys, time; from pathlib import Path; from benchmark.node.serving.process import ServerProcess\n"
        "server = ServerProcess(sys.argv[1], Path(sys.argv[2]), name='vLLM')\n"
        "while (ended := server.ended()) is None: time.sleep(0.02)\n"
        "print(ended)"
    )
    eats = f"{sys.executable} -c 'bytearray(400 << 20)'; echo a part has failed; exit 1"
    inside = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(little_memory), sys.executable, "-c", code, eats]
    said = subprocess.run([*inside, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert said.startswith(
        "vLLM ended with exit code 1; meanwhile the kernel's OOM killer ended something: memory ran out. The end of"
    )


def test_secrets_are_not_in_the_log_even_in_halves(tmp_path: Path) -> None:
    command = "printf 'key sk-012'; sleep 0.2; echo 3456789; echo other sk-0123456789; printf 'the end sk-01'; exit 3"
    server = ServerProcess(command, tmp_path, secret=("sk-0123456789",))
    until(lambda: server.ended() is not None)
    until(lambda: (tmp_path / LOG).read_text() == "key ***\nother ***\nthe end sk-01")
    assert "The end of endpoint.log: key *** | other *** | the end sk-01" in str(server.ended())


def test_what_stands_for_a_secret_in_an_error_is_explained(tmp_path: Path) -> None:
    words = "ValueError: invalid literal for int() with base 10: 'nonsense'"
    server = ServerProcess(f'echo "{words}"; exit 1', tmp_path, secret=("nonsense",))
    until(lambda: server.ended() is not None)
    assert str(server.ended()).endswith(
        "with base 10: '***' (*** stands for a secret from benchmark_environment, or one sent to the server.)"
    )


@pytest.mark.parametrize("end", ["exit 0", "exec sleep 1000"])
def test_temporary_files_of_a_server_go_with_it(tmp_path: Path, end: str) -> None:
    words = f"echo > $TMPDIR/vllm_dist_7 && mkdir $TMPDIR/more && echo $TMPDIR >{tmp_path}/there"
    server = ServerProcess(f"{words}; {end}", tmp_path, grace_s=0.5)
    until(lambda: (tmp_path / "there").exists() and (tmp_path / "there").read_text().endswith("\n"))
    own = Path((tmp_path / "there").read_text().strip())
    assert own.name.startswith("llm-benchmark-")
    if end == "exit 0":
        until(lambda: server.ended() is not None)
    else:
        assert (own / "vllm_dist_7").exists()
    server.stop()
    assert not own.exists()


def test_temporary_files_go_when_the_run_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from benchmark.node.serving.process import ServerProcess\n"
        "ServerProcess(sys.argv[1], Path(sys.argv[2]), grace_s=0.5); time.sleep(1000)"
    )
    words = f"echo > $TMPDIR/one; echo $TMPDIR >{tmp_path}/there; exec sleep 1000"
    run = subprocess.Popen([sys.executable, "-c", code, words, str(tmp_path)])
    until(lambda: (tmp_path / "there").exists() and (tmp_path / "there").read_text().endswith("\n"))
    run.kill()
    run.wait()
    until(lambda: not Path((tmp_path / "there").read_text().strip()).exists())


@pytest.mark.parametrize("length", [20, 90])
def test_sockets_have_room_in_the_temporary_directory(
    tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Path("/tmp", "n" * length)
    long.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code = "import os, socket; socket.socket(socket.AF_UNIX).bind(os.environ['TMPDIR'] + '/' + 'u' * 36)"
    server = ServerProcess(f'echo $TMPDIR; {sys.executable} -c "{code}"', tmp_path)
    until(lambda: server.ended() is not None)
    server.stop()
    long.rmdir()
    assert "exit code 0" in str(server.ended())
    assert (tmp_path / LOG).read_text().startswith(f"{long}/" if length == 20 else "/tmp/llm-benchmark-")


@pytest.mark.parametrize("given", ["", "/its/own"])
def test_what_is_compiled_is_kept_for_the_next_start(
    tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    if given:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", given)
    server = ServerProcess("echo $TORCHINDUCTOR_CACHE_DIR", tmp_path)
    until(lambda: server.ended() is not None)
    expected = given or f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}"
    assert (tmp_path / LOG).read_text() == f"{expected}\n"


def test_packages_beside_this_python_are_found_last(tmp_path: Path) -> None:
    server = ServerProcess("echo $PATH", tmp_path)
    until(lambda: server.ended() is not None)
    assert (tmp_path / LOG).read_text() == f"{os.environ['PATH']}:{Path(sys.executable).parent}\n"
