"""Read speed of the disk that holds the model, bypassing the page cache: a cold start waits for it."""

from __future__ import annotations

import mmap
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from benchmark.node.probes.interfaces import Figure, Host, Scope

SCOPE: Scope = "node"
RATES = ("disk_read",)
BLOCK, SECONDS = 2**24, 2.0
# A whole environment on a network disk has too many files to examine all.
LOOK_S = 3.0


def measure(host: Host) -> dict[str, Figure]:
    """Return the read rate of the directory's largest file, in GB/s; empty if none is large enough.

    With O_DIRECT, if the file system supports it: the page cache's contents say nothing about the disk.
    """
    found = _largest(host.directory)
    rate = _rate(found) if found else None
    return {} if rate is None else {"disk_read": Figure(rate / 1e9, "GB/s")}


def _largest(directory: Path) -> Path | None:
    """Return the largest file found within the time limit; None: none is large enough."""
    largest: Path | None = None
    most = 4 * BLOCK - 1
    began = time.monotonic()
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # not readable for this user, or deleted meanwhile
                seen = (path := Path(parent, name)).stat()
                if stat.S_ISREG(seen.st_mode) and seen.st_size > most:
                    largest, most = path, seen.st_size
            if time.monotonic() - began > LOOK_S:
                return largest
    return largest


def _rate(path: Path) -> float | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return None
    size = os.fstat(descriptor).st_size // BLOCK * BLOCK
    # Aligned, as O_DIRECT requires.
    with mmap.mmap(-1, BLOCK) as block:
        done, began = 0, time.perf_counter()
        try:
            while (taken := time.perf_counter() - began) < SECONDS and done < size:
                done += os.preadv(descriptor, [block], done)
        except OSError:
            return None
        finally:
            os.close(descriptor)
    return done / taken if taken else None
