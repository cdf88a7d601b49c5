"""A controller for tests of one run: tells by files, as the roles do, once the run has said what it waits for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmark.rundir import BELL

AHEAD_NS = 100_000_000


def put(directory: Path, file: str, word: int | str) -> None:
    """Put a word where the run looks for it, as the controller does."""
    beside = directory / f"{file}.tmp"
    beside.write_text(f"{word}\n")
    beside.rename(directory / file)
    with suppress(OSError):
        # Opened for reading too, so that it does not wait for a run that has died.
        bell = os.open(directory / BELL, os.O_RDWR | os.O_NONBLOCK)
        os.write(bell, b"\n")
        os.close(bell)


@contextmanager
def led(directory: Path, words: Sequence[tuple[str, str]]) -> Iterator[dict[str, int]]:
    """For each pair: once the first file is there, write the second, with a time a tenth of a second ahead.

    Yields what was told, word -> time, as it is told.
    """
    reported: dict[str, int] = {}
    leave = threading.Event()

    def lead() -> None:
        for heard, word in words:
            while not (directory / heard).exists():
                if leave.wait(0.005):
                    return
            reported[word] = time.time_ns() + AHEAD_NS
            put(directory, word, reported[word])

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        yield reported
    finally:
        leave.set()
        thread.join()
