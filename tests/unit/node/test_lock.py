"""A run's lock, for which the script waits that the controller starts on the node."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from benchmark.node.lock import STARTING, Lock

HOLD = "import sys; from pathlib import Path; from benchmark.node.lock import Lock; Lock(Path(sys.argv[1])); {then}"


def is_held(path: Path) -> bool:
    return subprocess.run(["flock", "-n", "-s", str(path), "true"], check=False).returncode != 0


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    lock = Lock(tmp_path / STARTING)
    assert is_held(tmp_path / STARTING)
    lock.release()
    lock.release()
    assert not is_held(tmp_path / STARTING)


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    script = HOLD.format(then="print('held', flush=True); sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "running.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_held(tmp_path / "running.lock")
        holder.kill()
    assert not is_held(tmp_path / "running.lock")


def test_a_lock_that_was_handed_on_is_released(tmp_path: Path) -> None:
    path = tmp_path / STARTING
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        lock = Lock(path, os.dup(other.fileno()))
        assert is_held(path)
        lock.release()
        assert not is_held(path)


def test_a_descriptor_of_something_else_is_no_lock(tmp_path: Path) -> None:
    with (tmp_path / "other").open("w") as other:
        lock = Lock(tmp_path / STARTING, other.fileno())
        assert is_held(tmp_path / STARTING)
        lock.release()
        assert not other.closed
        other.write("still open")
