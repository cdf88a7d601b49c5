"""How far an installation is, is heard while it goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "shared"))

from install_progress import following

from benchmark.fleet.ssh import Ssh


def test_what_is_written_beside_the_environment_is_shown(tmp_path: Path) -> None:
    heard: list[str] = []
    third = threading.Event()

    def show(words: str) -> None:
        heard.append(words)
        (tmp_path / ".the venv.progress").write_text(f"{len(heard)} packages\n")
        if len(heard) == 3:
            third.set()

    (tmp_path / ".the venv.progress").write_text("0 packages\n")
    with following(Ssh("here", lambda line: ["/bin/sh", "-c", line]), str(tmp_path / "the venv"), show):
        assert third.wait(60)
    assert heard[:3] == ["0 packages", "1 packages", "2 packages"]


def test_a_node_that_cannot_be_heard_fails_nothing(tmp_path: Path) -> None:
    with following(Ssh("gone", lambda line: ["/bin/false"]), str(tmp_path), lambda words: None):
        pass


def test_nothing_goes_on_after_a_controller_that_was_killed(tmp_path: Path) -> None:
    killed = f"""
import os, sys, time
sys.path[:0] = {[str(Path(__file__).parents[3] / "plugins" / "shared"), str(Path(__file__).parents[3])]!r}
from install_progress import following
from benchmark.fleet.ssh import Ssh
def show(words):
    os.kill(os.getpid(), 9)
with following(Ssh("here", lambda line: ["/bin/sh", "-c", line]), {str(tmp_path / "venv")!r}, show):
    time.sleep(60)
"""
    (tmp_path / ".venv.progress").write_text("0 packages\n")
    assert subprocess.run([sys.executable, "-c", killed], check=False, timeout=60).returncode == -9
    deadline = time.monotonic() + 60
    while left := _of(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _of(place: Path) -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes()
        except OSError:
            continue
        if str(place).encode() in said:
            found.append(said)
    return found
