"""Claims of a machine: what runs of any user see of each other there, from Python and from the shell before it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmark.errors import SetupError
from benchmark.node.machine import CPU, Claim, claim_machine

SCRIPT = Path(__file__).parents[3] / "benchmark/fleet/scripts/await_machine.sh"
HOLDS = """
import sys
from pathlib import Path
from benchmark.node.machine import Claim, claim_machine
claim_machine(Claim(tuple(sys.argv[2].split()), sys.argv[3] == "shared", sys.argv[4]), 60, print, Path(sys.argv[1]))
print("holds", flush=True)
input()
"""
WORDS = "run X of alice on there has been measuring here since 2026-11-28 12:00 UTC"


@contextmanager
def held(place: Path, uses: str, how: str, words: str = WORDS) -> Iterator[subprocess.Popen[str]]:
    """Have another process claim it, until the block ends or the process is killed."""
    command = [sys.executable, "-c", HOLDS, str(place), uses, how, words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def claim(place: Path, uses: str, how: str, wait_s: float = 0) -> list[str]:
    """Claim it in this process, and release it at once; return for whom was waited."""
    waited: list[str] = []
    held = claim_machine(Claim(tuple(uses.split()), how == "shared", "mine"), wait_s, waited.append, place)
    if held is not None:
        os.close(held)
    return waited


def ask_shell(place: Path, how: str, seconds: int = 0) -> tuple[int, str]:
    script = SCRIPT.read_text().replace("/tmp/", f"{place}/")
    done = subprocess.run(["sh", "-c", script, "x", how, str(seconds), ""], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("theirs", "mine", "shell", "alone"),
    [
        (("cpu", "alone"), ("cpu", "alone"), "alone", False),
        (("cpu", "alone"), ("cpu", "shared"), "shared", False),
        (("cpu", "shared"), ("cpu", "alone"), "alone", False),
        (("cpu", "shared"), ("cpu", "shared"), "shared", True),
        (("GPU-1 GPU-2", "alone"), ("GPU-2", "alone"), "alone", False),
        (("GPU-1 GPU-2", "alone"), ("GPU-3", "alone"), "gpus", True),
        (("GPU-1", "alone"), ("cpu", "alone"), "alone", False),
        (("cpu", "alone"), ("GPU-1", "alone"), "gpus", False),
    ],
)
def test_who_excludes_whom(
    theirs: tuple[str, str], mine: tuple[str, str], shell: str, alone: bool, tmp_path: Path
) -> None:
    with held(tmp_path, *theirs):
        code, said = ask_shell(tmp_path, shell)
        if alone:
            assert claim(tmp_path, *mine) == []
            assert (code, said) == (0, "")
        else:
            with pytest.raises(SetupError, match=rf"^Not alone: {WORDS} \(benchmark_busy is fail\)\.$"):
                claim(tmp_path, *mine)
            assert (code, said) == (3, f"Not alone: {WORDS} (benchmark_busy is fail).")
    # Whoever was killed holds nothing any more, and leaves nothing behind for long.
    assert claim(tmp_path, *mine) == []
    assert len(list(tmp_path.glob("*.claim"))) == 1


def test_who_waits_sleeps_until_the_other_has_ended(tmp_path: Path) -> None:
    with held(tmp_path, CPU, "alone") as other:
        with pytest.raises(SetupError, match=r"after waiting 0\.2 s \(benchmark_sync_timeout_s\)"):
            claim(tmp_path, CPU, "alone", 0.2)
        code, said = ask_shell(tmp_path, "alone", 1)
        assert (code, said) == (3, f"Not alone: {WORDS} (after waiting 1 s, benchmark_sync_timeout_s).")
        threading.Timer(0.5, other.kill).start()
        assert claim(tmp_path, CPU, "alone", 60) == [WORDS]
    with held(tmp_path, CPU, "alone") as other:
        threading.Timer(0.5, other.kill).start()
        assert ask_shell(tmp_path, "alone", 60) == (0, "")


def test_what_is_no_claim_is_neither_followed_nor_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "target").write_text("as it was")
    (tmp_path / "llm-benchmark-1.claim").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "llm-benchmark-2.claim")
    (tmp_path / "llm-benchmark-3.claim").mkdir()
    assert claim(tmp_path, CPU, "alone", 60) == []
    assert ask_shell(tmp_path, "alone", 60) == (0, "")
    assert (tmp_path / "target").read_text() == "as it was"
    # A door that somebody put there: nobody is kept out, and that is said.
    (tmp_path / "llm-benchmark.door").unlink()
    (tmp_path / "llm-benchmark.door").symlink_to(tmp_path / "target")
    assert claim(tmp_path, CPU, "alone", 60) == []
    assert "Other runs cannot be kept away from this machine" in capsys.readouterr().out


def test_a_claim_that_says_nothing_is_of_all(tmp_path: Path) -> None:
    assert Claim.parse("", "bob") == Claim((CPU,), False, "a run of bob is measuring here")
    assert Claim.parse("\x1b[31mred\ngpus A B\nshared\n", "bob") == Claim(("A", "B"), True, "[31mred")
    for one in (Claim((CPU,), True, "w"), Claim(("GPU-1", "GPU-2"), False, "w")):
        assert Claim.parse(one.text(), "") == one


def test_two_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS.replace("60, print", "0, print"), str(tmp_path), CPU, "alone", WORDS]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    # Each has claimed it or failed before any is released.
    said = [process.stdout.readline() for process in started if process.stdout]
    for process in started:
        process.communicate("\n")
    assert sorted(said) == ["", "", "", "holds\n"]
