"""A controller for tests of one run: tells by files, as the roles do, once the run has said what it waits for."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PUT = Path(__file__).parents[3] / "roles/benchmark/files/put.sh"
AHEAD_NS = 100_000_000


def put(directory: Path, file: str, word: int) -> None:
    """Put a word where the run looks for it, as the controller does."""
    subprocess.run(["sh", str(PUT), str(directory.parent), directory.name, file, str(word)], check=True)


@contextmanager
def led(directory: Path, words: Sequence[tuple[str, str]]) -> Iterator[dict[str, int]]:
    """For each pair: once the first file is there, write the second, with a time a tenth of a second ahead.

    Yields what was told, word -> time, as it is told.
    """
    told: dict[str, int] = {}
    leave = threading.Event()

    def lead() -> None:
        for heard, word in words:
            while not (directory / heard).exists():
                if leave.wait(0.005):
                    return
            told[word] = time.time_ns() + AHEAD_NS
            put(directory, word, told[word])

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        yield told
    finally:
        leave.set()
        thread.join()
