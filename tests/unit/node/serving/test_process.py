"""A started server ends with the run, however the run ends. Every process here writes its id into a file."""

import os
import signal
import subprocess
import sys
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
    assert str(server.ended()).endswith("No line says why: a process of it may have been killed (see dmesg).")


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
        "vLLM ended with exit code 1; the kernel's OOM killer was at work meanwhile: memory ran out. The end of"
    )


def test_secrets_are_not_in_the_log_even_in_halves(tmp_path: Path) -> None:
    command = "printf 'key sk-012'; sleep 0.2; echo 3456789; echo other sk-0123456789; printf 'the end sk-01'; exit 3"
    server = ServerProcess(command, tmp_path, secret=("sk-0123456789",))
    until(lambda: server.ended() is not None)
    until(lambda: (tmp_path / LOG).read_text() == "key ***\nother ***\nthe end sk-01")
    assert "The end of endpoint.log: key *** | other *** | the end sk-01" in str(server.ended())


def test_packages_beside_this_python_are_found_last(tmp_path: Path) -> None:
    server = ServerProcess("echo $PATH", tmp_path)
    until(lambda: server.ended() is not None)
    assert (tmp_path / LOG).read_text() == f"{os.environ['PATH']}:{Path(sys.executable).parent}\n"
