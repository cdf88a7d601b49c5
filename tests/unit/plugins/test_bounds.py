"""What a node may cost the controller, in a process of its own: the limits are a whole process's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "plugins" / "shared"
BEGIN = f"""
import subprocess, sys, time
sys.path.insert(0, {str(SHARED)!r})
import checkout
from bounds import Late, TooMuch, bounded
"""


def reported(script: str) -> str:
    """Run it as a worker is run, the leader of a process group, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_honest_is_not_hindered() -> None:
    assert reported("with bounded(60):\n    print(len(bytes(10_000_000)))") == "10000000"


def test_a_node_that_does_not_answer_is_let_go_with_its_ssh() -> None:
    script = """
ssh = subprocess.Popen(["sleep", "600"])
try:
    with bounded(0.3):
        ssh.wait()
except Late as late:
    print(late.message, ssh.wait())
time.sleep(1)  # no alarm is left
"""
    assert reported(script) == "accepted a command but gave no answer within 0 s -15"


def test_a_node_that_sends_without_end_is_let_go() -> None:
    script = """
ssh = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
kept = []
try:
    with bounded(600):
        while True:
            kept.append(ssh.stdout.read(1 << 24))
except TooMuch as much:
    print(much, ssh.wait())
kept.append(bytes(1 << 29))  # afterwards the limit is as it was
"""
    assert reported(script) == "The node sends too much: more than 64 MiB where a few lines were expected. -15"


def test_a_file_without_end_is_not_written(tmp_path: Path) -> None:
    script = f"""
with open({str(tmp_path / "file")!r}, "wb") as file:
    try:
        with bounded(60):
            file.truncate(3 << 30)
    except OSError as error:
        print(error.strerror)
"""
    assert reported(script) == "File too large"
