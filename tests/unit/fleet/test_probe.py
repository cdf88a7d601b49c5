"""Nodes on this machine are asked what they have, all at once."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable

import pytest

from benchmark.fleet import probe as probe_module
from benchmark.fleet import session as session_module
from benchmark.fleet.command import run_command
from benchmark.fleet.errors import Lost, Refused
from benchmark.fleet.probe import ProbeResult, probe
from benchmark.fleet.ssh import Ssh
from tests.unit.fleet.by_hand import here, noisy


def ask(*commands: str, call: Callable[[str], list[str]] = here) -> ProbeResult:
    return asyncio.run(probe({"jw2": (Ssh("jw2", call), commands)}))["jw2"]


@pytest.mark.parametrize("call", [here, noisy("echo 0; echo end 0; printf x", "echo y")], ids=["", "noisy"])
def test_what_succeeded_is_heard(call: Callable[[str], list[str]]) -> None:
    words = shlex.join(["printf", "%s\\n", "a  b", "it's"])
    failing = ["false", "sh -c 'echo much; exit 3'", "nosuchprogram 1"]
    result = ask(words, *failing, "cat", "sh -c 'printf unended'", call=call)
    assert result == ProbeResult({words: "a  b\nit's\n", "cat": "", "sh -c 'printf unended'": "unended"})


def test_each_node_answers_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "ANSWER_S", 2)
    ways = {
        "fine": here,
        "gone": lambda line: ["sh", "-c", "echo Connection refused >&2; exit 255"],
        "closed": lambda line: ["sh", "-c", "echo This account is not available.; exit 1"],
    }
    asked: dict[str, tuple[Ssh, tuple[str, ...]]] = {n: (Ssh(n, way), ("echo 1", "true")) for n, way in ways.items()}
    asked["hangs"] = (Ssh("hangs", here), ("echo 1", "sleep 600", "echo 2"))
    asked["ends"] = (Ssh("ends", here), ("echo 1", "exit 0", "echo 2"))
    results = asyncio.run(probe(asked))
    assert results["fine"] == ProbeResult({"echo 1": "1\n", "true": ""})
    assert results["gone"].failure.startswith("Not reachable: Nothing answers SSH at gone")
    assert "runs no command: it ends with exit code 1, and prints 'This account" in results["closed"].failure
    # What is not answered is left to whoever needs it.
    assert results["hangs"] == results["ends"] == ProbeResult({"echo 1": "1\n"})


def test_a_command_has_its_input_output_and_exit_code_to_itself() -> None:
    way = Ssh("jw2", noisy("echo 0", "echo 0; echo bye"))
    done = asyncio.run(run_command(way, "sh -c 'cat; echo oh >&2; exit 7'", b"given\nwithout end", 20))
    assert done == (7, "given\nwithout end", "oh\n")
    assert asyncio.run(run_command(way, "cat", None, 20)) == (0, "", "")


@pytest.mark.parametrize(
    ("command", "error", "said"),
    [
        ("exec sleep 600", Lost, "accepted a command but gave no answer within 1 s"),
        ("yes", Refused, "The node sends too much"),
        ("kill -9 $$", Lost, "the session ended"),
    ],
)
def test_a_command_is_bounded(command: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MOST_PRINTED", 100_000)
    with pytest.raises(error, match=said):
        asyncio.run(run_command(Ssh("jw2", here), command, None, 1 if "sleep" in command else 30))


def test_a_server_that_drops_logins_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "DROPPED_PAUSE_S", (0.0, 0.0))
    calls: list[str] = []

    def call(line: str) -> list[str]:
        calls.append(line)
        dropped = "echo 'kex_exchange_identification: Connection closed by remote host' >&2; exit 255"
        return here(dropped if len(calls) < 3 else line)

    assert ask("echo 1", call=call) == ProbeResult({"echo 1": "1\n"})
    assert len(calls) == 3


def test_a_way_that_has_to_log_in_first_does() -> None:
    done: list[int] = []
    way = Ssh("jw2", here, login=lambda: done.append(1))
    assert asyncio.run(run_command(way, "echo 1", None, 20))[1] == "1\n"
    assert done == [1]

    def refused() -> None:
        raise OSError("Permission denied")

    with pytest.raises(Lost, match="Permission denied"):
        asyncio.run(run_command(Ssh("jw2", here, login=refused), "echo 1", None, 20))


def test_progress_of_a_command_is_heard_and_not_in_its_output() -> None:
    heard: list[str] = []
    command = (
        "sh -c 'echo progress: 1 of 2 GB >&2; printf prog >&2; sleep 0.2; echo ress: 2 >&2; echo oh >&2; echo no end'"
    )
    done = asyncio.run(run_command(Ssh("jw2", here), command, None, 20, heard.append))
    assert heard == ["1 of 2 GB", "2"]
    assert done == (0, "no end\n", "oh\n")
