"""A block of lines at the bottom of a terminal that is redrawn; all other output goes above it.

ansible-core prints everything through `sys.stdout` and `sys.stderr`, under one lock that it also holds while it forks a
worker. The block uses the same lock: a second lock, such as a library's, could deadlock.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


def draws(environment: Mapping[str, str], terminal: bool) -> bool:
    """Return whether a block may be drawn. ansible-runner gives its playbook a terminal that no one sees."""
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
        """Redirect the program's output through the block."""
        with self._lock:
            if self._streams is None:
                self._streams = sys.stdout, sys.stderr
                sys.stdout = _Above(sys.stdout, self)
                sys.stderr = _Above(sys.stderr, self)

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines instead of the previous ones. They must be printable and fit the terminal."""
        with self._lock:
            if self._streams is not None and [*lines] != self._lines:
                self._erase()
                self._lines = [*lines]
                self._draw()

    def close(self) -> None:
        """Remove the block from the screen and restore the output."""
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
        # Never after an unfinished line.
        if self._streams is not None and self._lines and not self._line_is_open:
            # Without wrapping, in case the terminal has become narrower since its size was read.
            self._streams[0].write("\x1b[?7l" + "\n".join(self._lines) + "\x1b[?7h")
            self._streams[0].flush()
            self._drawn = len(self._lines)


class _Above:
    """A stream that writes above the block, and otherwise behaves as the original."""

    def __init__(self, stream: TextIO, block: Block) -> None:
        self._stream = stream
        self._block = block

    def write(self, text: str) -> int:
        return self._block.write_above(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
