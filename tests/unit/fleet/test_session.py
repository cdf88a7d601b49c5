"""Login shells as users have them: whatever their files print or ask, they run our commands or are refused."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.fleet import session as session_module
from benchmark.fleet.command import run_command
from benchmark.fleet.errors import Lost, Refused
from benchmark.fleet.login_shell import OWN_ENVIRONMENT, far_command, plain
from benchmark.fleet.session import Session
from benchmark.fleet.ssh import Ssh

# The file that each reads when sshd starts it with a command; dash reads none.
RC_FILES = {
    "bash": ".bashrc",
    "zsh": ".zshenv",
    "tcsh": ".tcshrc",
    "fish": ".config/fish/config.fish",
}
LONG = "x" * 70_000
ANSWER = (7, "a  b\n\u00e9")
# What a file prints, in words that all four shells understand.
NOISE = {
    "a title": r"printf '\033]0;x\007'",
    "a greeting": "echo Welcome",
    "a number": "echo 0",
    "no end of line": "printf 0",
    "on standard error": "sh -c 'echo oh >&2'",
    "much on standard error": "sh -c 'head -c 300000 /dev/zero >&2'",
    "a long line": f"echo {LONG}",
    "long and without end": f"printf %s {LONG}",
    "bytes": r"printf '\377\000\n'",
    "what looks like ours": "echo 0123456789abcdef0123456789abcdef here",
}
# What is printed when the shell ends; tcsh does that for a login alone.
AT_LOGOUT = {
    "bash": "trap 'echo 0; echo Goodbye' EXIT",
    "zsh": "trap 'echo 0; echo Goodbye' EXIT",
    "fish": "function bye --on-event fish_exit; echo 0; echo Goodbye; end",
}


def login(home: Path, shell: str, rc: str = "") -> Callable[[str], list[str]]:
    """Return how sshd starts a command for a user with that shell, and with that in the file that it reads."""
    program = shutil.which(shell)
    assert program, f"{shell} is not installed (Debian: tcsh fish zsh)"
    if rc:
        path = home / RC_FILES[shell]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{rc}\n")
    # SSH_CLIENT: by which bash knows that it is to read its file.
    environment = ["env", "-i", "PATH=/usr/bin:/bin", f"HOME={home}", "SSH_CLIENT=127.0.0.1 1 22"]
    return lambda line: [*environment, program, "-c", far_command(line)]


async def ask(call: Callable[[str], list[str]]) -> tuple[int, str]:
    code, out, _ = await run_command(Ssh("jw2", call), "sh -c 'cat; exit 7'", b"a  b\n\xc3\xa9", 60)
    return code, out


def answer(call: Callable[[str], list[str]]) -> tuple[int, str]:
    return asyncio.run(ask(call))


@pytest.mark.parametrize("shell", [*RC_FILES, "dash"])
def test_every_login_shell_runs_a_command(shell: str, tmp_path: Path) -> None:
    assert answer(login(tmp_path, shell)) == ANSWER


@pytest.mark.parametrize("shell", RC_FILES)
def test_what_a_file_prints_is_no_answer(shell: str, tmp_path: Path) -> None:
    noise = NOISE | ({"at logout": AT_LOGOUT[shell]} if shell in AT_LOGOUT else {})
    ways = {name: login(tmp_path / name, shell, rc) for name, rc in noise.items()}
    for name, way in ways.items():
        done = subprocess.run(way(":"), capture_output=True, check=True)
        assert done.stdout + done.stderr, f"{name} is heard"

    async def ask_all() -> list[tuple[int, str]]:
        return await asyncio.gather(*map(ask, ways.values()))

    assert dict(zip(ways, asyncio.run(ask_all()), strict=True)) == dict.fromkeys(ways, ANSWER)


def test_a_file_that_asks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "ANSWER_S", 5)
    monkeypatch.setattr(session_module, "EXIT_S", 0)
    asks = {
        "bash": "printf 'Choose a project: '; read answer",
        "zsh": "echo 'Choose a project:'; read answer",
        "tcsh": "printf 'Choose a project: '\nset answer = $<",
        "fish": "echo 'Choose a project:'; cat > /dev/null",
    }

    async def ask_all() -> list[object]:
        ways = [login(tmp_path, shell, rc) for shell, rc in asks.items()]
        return await asyncio.gather(*map(ask, ways), return_exceptions=True)

    for shell, refused in zip(asks, asyncio.run(ask_all()), strict=True):
        assert isinstance(refused, Refused), (shell, refused)
        assert "login shell on the node prints 'Choose a project:' and runs no command: does one of" in str(refused)


@pytest.mark.parametrize(
    ("forced", "said"),
    [
        ("echo 0; echo Use the portal; exit 3", "it ends with exit code 3, and prints '0 Use the portal'"),
        ("exit 0", "it ends with exit code 0. Set ansible_user"),
        (f"printf %s {LONG}; exit 1", "it ends with exit code 1, and prints 'xxx"),
        ("echo This account is not available >&2; exit 1", "exit code 1, and prints 'This account is not available'"),
    ],
)
def test_a_forced_command_is_refused(forced: str, said: str) -> None:
    with pytest.raises(Refused, match="runs no command") as refused:
        answer(lambda line: ["/bin/sh", "-c", forced])
    assert said in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("rc", ["exec bash", "read answer"])
def test_a_file_that_reads_what_is_sent_is_named(rc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "ANSWER_S", 2)
    with pytest.raises(Refused, match="reads its input and runs no command: does one of its files"):
        answer(login(tmp_path, "bash", rc))


def test_a_login_that_gives_commands_a_terminal_is_refused() -> None:
    with pytest.raises(Refused, match="gives commands a terminal"):
        answer(lambda line: ["script", "-qec", line, "/dev/null"])


def test_options_that_a_file_exports_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sh is bash it takes them from its environment, and `set -e` of one script would go on in all it starts."""
    shells = tmp_path / "bin"
    shells.mkdir()
    (shells / "sh").symlink_to(shutil.which("bash") or "")

    def call(line: str) -> list[str]:
        program = f"set -o noclobber; set -x; export SHELLOPTS PATH={shells}:$PATH; exec sh -c {shlex.quote(line)}"
        return ["bash", "-c", program]

    (tmp_path / "there").touch()
    command = f"sh -c 'echo $- > {tmp_path}/there; cat {tmp_path}/there'"
    code, out, errors = asyncio.run(run_command(Ssh("jw2", call), command, None, 60))
    assert (code, errors) == (0, "")
    assert not {"C", "x"} & set(out)


def bash_as_sh(directory: Path, rc: str) -> Callable[[str], list[str]]:
    """Return how a line is run where sh is bash, with that before."""
    bash = shutil.which("bash") or ""
    (directory / "sh").symlink_to(bash)
    # A name of its own does not: it has to be called sh.
    words = f'{rc}; PATH={directory}:$PATH; export PATH; exec -a sh {bash} -c "$1"'
    return lambda line: [bash, "-c", words, "login", plain(line)]


def test_functions_that_a_file_exports_are_not_ours(tmp_path: Path) -> None:
    """Where sh is bash it takes them from its environment, and so does all that it starts."""
    names = ("[", "cat", "cd", "command", "date", "echo", "env", "head", "printf", "read", "sh", "test", "timeout")
    functions = [f'{name}() {{ builtin echo -n "{name} is called "; builtin command {name} "$@"; }}' for name in names]
    call = bash_as_sh(tmp_path, "; ".join([*functions, f"export -f {' '.join(names)}"]))
    heard = subprocess.run(call("cat /dev/null"), check=True, capture_output=True, text=True).stdout
    assert heard == "cat is called "
    # With quotes a line is sent as printf's octal numbers.
    quoted = subprocess.run(call(f"{OWN_ENVIRONMENT}echo 'a  b'"), check=False, capture_output=True, text=True)
    assert (quoted.stdout, quoted.stderr) == ("a  b\n", "")
    assert answer(call) == ANSWER


def test_a_file_that_forgets_the_systems_programs_is_no_matter() -> None:
    """As `export PATH=/usr/local/cuda/bin` does, where `:$PATH` was meant."""
    assert answer(lambda line: ["/usr/bin/env", "PATH=/opt/cuda/bin", "/bin/sh", "-c", line]) == ANSWER


def test_another_pythons_home_is_not_that_of_ours(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-c", "import select"])

    def call(line: str) -> list[str]:
        return ["env", f"PYTHONHOME={tmp_path}", "/bin/sh", "-c", line]

    code, _, errors = asyncio.run(run_command(Ssh("jw2", call), command, None, 60))
    assert (code, errors) == (0, "")


def test_what_a_file_says_is_not_why_a_connection_is_lost(tmp_path: Path) -> None:
    way = login(tmp_path, "bash", "echo 'Could not resolve hostname' >&2")

    async def lose() -> str:
        session = await Session.open(Ssh("jw2", way), "echo 'disk: bad' >&2; exit 1", [], 60)
        try:
            await session.receive(60)
        except Lost as lost:
            return str(lost)
        finally:
            session.close()
        return ""

    assert asyncio.run(lose()) == "disk: bad"


def test_silence_is_a_node_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "ANSWER_S", 1)
    monkeypatch.setattr(session_module, "EXIT_S", 0)
    with pytest.raises(Lost, match="gave no answer within 1 s"):
        answer(lambda line: ["/bin/sh", "-c", "sleep 600"])


def test_a_command_is_called_again_where_a_server_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role's own worker, beside many others behind one jump host, is as little lost as the probe of all nodes."""
    monkeypatch.setattr(session_module, "DROPPED_PAUSE_S", (0.0, 0.0))
    calls: list[str] = []

    def dropping(line: str) -> list[str]:
        calls.append(line)
        dropped = "echo 'kex_exchange_identification: read: Connection reset by peer' >&2; exit 255"
        return ["/bin/sh", "-c", dropped if len(calls) < 3 else line]

    assert answer(dropping) == ANSWER
    assert len(calls) == 3
