"""How fast the disk reads that holds the model, around the page cache: what a cold start waits for."""

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
# A whole environment on a network disk has more files than there is time to look at.
LOOK_S = 3.0


def measure(host: Host) -> dict[str, Figure]:
    """Return the rate at which the largest file of the directory is read, in GB/s; nothing where none is large enough.

    With O_DIRECT, where the file system has it: what the page cache holds says nothing about the disk.
    """
    found = _largest(host.directory)
    rate = _rate(found) if found else None
    return {} if rate is None else {"disk_read": Figure(rate / 1e9, "GB/s")}


def _largest(directory: Path) -> Path | None:
    """Return the largest file that is found in the time there is for it; None: none is large enough."""
    largest: Path | None = None
    most = 4 * BLOCK - 1
    began = time.monotonic()
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # not this user's, or gone meanwhile
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
    # Aligned, as O_DIRECT wants it.
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
