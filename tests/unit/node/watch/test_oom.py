"""The kernel's own count of what it killed for want of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.node.watch import oom
from benchmark.node.watch.oom import oom_kills


@pytest.mark.parametrize(
    ("own", "file", "count"),
    [
        ("4:memory:/a/b\n0::/\n", "memory/a/b/memory.oom_control", 3),
        ("0::/user.slice/s.scope\n", "user.slice/s.scope/memory.events", 3),
        ("4:memory:/docker/1\n0::/\n", "memory/memory.oom_control", 3),
        ("0::/\n", "memory.events", 3),
        ("0::/\n", "elsewhere", None),
        (None, "memory.events", 3),
    ],
)
def test_where_the_count_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, file: str, count: int | None
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("under_oom 0\noom 7\noom_kill 3\noom_group_kill 0\n")
    monkeypatch.setattr(oom, "CGROUPS", tmp_path)
    monkeypatch.setattr(oom, "OWN", tmp_path / "own")
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert oom_kills() == count


COUNT = """
import subprocess, sys
from benchmark.node.watch.oom import oom_kills
before = oom_kills()
eat = subprocess.run([sys.executable, "-c", "bytearray(400 << 20)"])
print(eat.returncode, before, oom_kills())
"""


def inside(little_memory: Path, program: str) -> list[str]:
    """Run a Python program in the cgroup; return the words that it prints."""
    command = ["sh", "-c", 'echo $$ > "$1" && exec "$2" -c "$3"', "sh", str(little_memory), sys.executable, program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_a_process_that_the_kernel_kills_is_counted(little_memory: Path) -> None:
    assert inside(little_memory, COUNT) == ["-9", "0", "1"]
