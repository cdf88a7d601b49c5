"""Whether processes that a test started are gone."""

from __future__ import annotations

import time
from pathlib import Path

# A killed process is gone once it is given the CPU again: on a busy machine that takes a while.
PATIENCE_S = 30.0


def runs(pid: int) -> bool:
    """Return whether there is such a process, and not only what is left of it for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def assert_ended(pid: int) -> None:
    """Assert that the process ends, soon."""
    deadline = time.monotonic() + PATIENCE_S
    while runs(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.01)
