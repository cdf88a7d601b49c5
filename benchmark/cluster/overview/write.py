"""Write `index.html` atomically, by one process at a time, and never over a foreign page."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from benchmark import locks
from benchmark.cluster.overview.page import render_index
from benchmark.cluster.stored.index import stored_runs
from benchmark.errors import InputError
from benchmark.files import write_atomic
from benchmark.rundir import PAGE_FILE

# Part of the head of each of the project's pages.
OURS = b'<meta name="generator" content="llm-datacenter-benchmark">'
HEAD_BYTES = 4096


def write_index(results: Path) -> int:
    """Replace the page over all runs of a results directory; return how many runs it shows.

    Raises InputError if it cannot be written; an existing page is then unchanged.
    """
    path = results / PAGE_FILE
    try:
        with locks.alone(results):
            # The runs are read under the lock, so that the last writer has seen all runs that ended before.
            skipped: list[str] = []
            runs = stored_runs(results, skipped)
            _require_ours(path)
            write_atomic(path, render_index(results, runs, skipped))
    except OSError as error:
        raise InputError(f"{path}: the page over all runs cannot be written: {error.strerror}.") from None
    return len(runs)


def _require_ours(path: Path) -> None:
    """Raise InputError if there is another page: results may be in a web server's directory."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            head = file.read(HEAD_BYTES) if regular else b""
    except FileNotFoundError:
        return
    if not regular or (head and OURS not in head):
        raise InputError(f"{path} is not the page over all runs, and is left alone: move it away to get one.")
