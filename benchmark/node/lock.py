"""Locks that a run holds during a phase, so that others can wait for its end without polling."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from benchmark.locks import take

# For the controller's scripts on the node (benchmark/fleet/scripts/): held until the run is ready to measure, and until
# it has measured alone. For the run's end there is running.lock, which start.sh holds.
STARTING = "starting.lock"
ALONE = "alone.lock"


class Lock:
    """A file that is locked until `release`, or until the process ends in any way.

    With `descriptor` the process that started this one has already locked the file. On a file system without locks
    there is none, and waiting processes have to poll.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        if descriptor is not None and _is_open(descriptor, path):
            os.set_inheritable(descriptor, False)
            self._descriptor = descriptor
            return
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        take(self._descriptor)

    def release(self) -> None:
        """Let waiting processes continue."""
        if self._descriptor >= 0:
            # The process that passed it on may still have it open.
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1


def _is_open(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
