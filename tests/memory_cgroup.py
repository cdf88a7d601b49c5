"""A memory cgroup with a limit, for tests of what the OOM killer leaves behind: v1 or v2, whichever there is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_cgroup(name: str, mib: int) -> Iterator[Path]:
    """Make a cgroup that may take `mib`; yield the file to which a process writes its pid to be in it.

    Raises OSError where this machine lets nobody make one.
    """
    v1 = (ROOT / "memory").is_dir()
    place = (ROOT / "memory" if v1 else ROOT) / name
    place.mkdir()
    try:
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if v1 else ("memory.max", "memory.swap.max")
        for file, value in zip(limits, (mib << 20, mib << 20 if v1 else 0), strict=True):
            # A kernel may not count swap; without the first there is no limit.
            with suppress(*(() if file == limits[0] else (FileNotFoundError,))):
                (place / file).write_text(str(value))
        yield place / "cgroup.procs"
    finally:
        remove(place)


def remove(place: Path) -> None:
    """End what is left in a cgroup, and remove it."""
    for _ in range(100):
        for pid in (place / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            place.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    place.rmdir()
