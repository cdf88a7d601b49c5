"""How fast the disk reads that holds the model, around the page cache: what a cold start waits for."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from benchmark.node.probes.interfaces import Figure, Host, Scope

SCOPE: Scope = "node"
RATES = ("disk_read",)
BLOCK, SECONDS = 2**24, 2.0


def measure(host: Host) -> dict[str, Figure]:
    """Return the rate at which the largest file of the directory is read, in GB/s; nothing where none is large enough.

    With O_DIRECT, where the file system has it: what the page cache holds says nothing about the disk.
    """
    files = [path for path in host.directory.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size, default=None)
    if largest is None or largest.stat().st_size < 4 * BLOCK:
        return {}
    rate = _rate(largest)
    return {} if rate is None else {"disk_read": Figure(rate / 1e9, "GB/s")}


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
