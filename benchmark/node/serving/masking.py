"""Keep secrets out of a server's log and out of the run's own output."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from benchmark.secret_settings import MASK

_READ = 1 << 16


def masked_into(log: BinaryIO, secret: Sequence[str]) -> BinaryIO:
    """Return a pipe to write to; a thread copies it to `log` with the secrets masked.

    The log is closed when the last writer has closed the pipe.
    """
    values = [value.encode() for value in secret]
    read, write = os.pipe()

    def work() -> None:
        rest = b""
        with log, os.fdopen(read, "rb", buffering=0) as pipe:
            while received := pipe.read(_READ):
                text = _masked(rest + received, values)
                # A secret may arrive in two parts.
                held = _begun(text, values)
                rest = text[len(text) - held :]
                _write(log, text[: len(text) - held])
            _write(log, rest)

    threading.Thread(target=work, name="endpoint.log", daemon=True).start()
    return os.fdopen(write, "wb")


class MaskedStream:
    """A text stream that writes to another one, after `mask` has been applied to each piece."""

    def __init__(self, stream: TextIO, mask: Callable[[str], str]) -> None:
        self._stream = stream
        self._mask = mask

    def write(self, text: str) -> int:
        """Write the masked text; return the length of `text`."""
        self._stream.write(self._mask(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write(log: BinaryIO, text: bytes) -> None:
    # Keep reading the pipe even if the disk is full: otherwise the server would fail too.
    with suppress(OSError):
        log.write(text)


def _masked(text: bytes, values: Sequence[bytes]) -> bytes:
    for value in values:
        text = text.replace(value, MASK.encode())
    return text


def _begun(text: bytes, values: Sequence[bytes]) -> int:
    """Return how many bytes at the end may be the beginning of a secret."""
    longest = max(map(len, values)) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if _begins(text[-n:], values)), 0)


def _begins(end: bytes, values: Sequence[bytes]) -> bool:
    return any(value.startswith(end) for value in values)
