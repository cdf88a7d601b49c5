"""Locks that a run holds while it is at something, so that others can wait for it without looking again and again."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

# Waited for by roles/benchmark/files/watch.sh: until the run is ready to measure, until it has measured alone, and
# until it has ended.
STARTING = "starting.lock"
ALONE = "alone.lock"
RUNNING = "running.lock"


class Lock:
    """A file that is locked until `release`, or until the process ends in whatever way.

    Where a file system has no locks there is none, and whoever waits has to look.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let those go on who wait."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
