"""A block of lines at the bottom of a terminal that is drawn again and again; all other output goes above it.

Everything that ansible-core prints goes through `sys.stdout` and `sys.stderr`, under one lock that it also holds while
it forks a worker. The block takes the same lock: a second one (a library's) taken in the other order would deadlock.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


def draws(environment: Mapping[str, str], terminal: bool) -> bool:
    """Return whether a block may be drawn. ansible-runner gives its playbook a terminal that nobody looks at."""
    return terminal and environment.get("TERM", "dumb") != "dumb" and "AWX_ISOLATED_DATA_DIR" not in environment


class Block:
    """Drawn on `sys.stdout`, which is a terminal. Use from any thread."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._lines: list[str] = []
        self._drawn = 0
        self._line_is_open = False
        self._streams: tuple[TextIO, TextIO] | None = None

    def open(self) -> None:
        """Stand between the program and its terminal."""
        with self._lock:
            if self._streams is None:
                self._streams = sys.stdout, sys.stderr
                sys.stdout = _Above(sys.stdout, self)
                sys.stderr = _Above(sys.stderr, self)

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines in the place of those before. They are clean and fit the terminal."""
        with self._lock:
            if self._streams is not None and [*lines] != self._lines:
                self._erase()
                self._lines = [*lines]
                self._draw()

    def close(self) -> None:
        """Take the block off the screen and step aside."""
        with self._lock:
            if self._streams is not None:
                self._erase()
                self._lines = []
                sys.stdout, sys.stderr = self._streams
                self._streams = None

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write to one of the streams, above the block."""
        with self._lock:
            self._erase()
            written = stream.write(text)
            stream.flush()
            if text:
                self._line_is_open = not text.endswith("\n")
            self._draw()
        return written

    def _erase(self) -> None:
        if self._drawn and self._streams is not None:
            up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
            self._streams[0].write(f"\r{up}\x1b[J")
            self._streams[0].flush()
            self._drawn = 0

    def _draw(self) -> None:
        # Never behind a line that somebody has not ended yet.
        if self._streams is not None and self._lines and not self._line_is_open:
            # No line is wrapped, even where the terminal was made narrower since it was asked for its size.
            self._streams[0].write("\x1b[?7l" + "\n".join(self._lines) + "\x1b[?7h")
            self._streams[0].flush()
            self._drawn = len(self._lines)


class _Above:
    """A stream whose text goes above the block; in everything else the stream itself."""

    def __init__(self, stream: TextIO, block: Block) -> None:
        self._stream = stream
        self._block = block

    def write(self, text: str) -> int:
        return self._block.write_above(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
