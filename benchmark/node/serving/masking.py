"""Keep secrets out of what is written: a server's log, and what the run itself prints."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from benchmark.secret_settings import MASK

_READ = 1 << 16


def masked_into(log: BinaryIO, secret: Sequence[str]) -> BinaryIO:
    """Return a pipe to write to; a thread brings what is written there into `log`, without any of the secrets.

    The log is closed when the last who writes has closed the pipe.
    """
    values = [value.encode() for value in secret]
    read, write = os.pipe()

    def work() -> None:
        rest = b""
        with log, os.fdopen(read, "rb", buffering=0) as pipe:
            while received := pipe.read(_READ):
                text = _masked(rest + received, values)
                # A secret may have come in halves.
                held = _begun(text, values)
                rest = text[len(text) - held :]
                _write(log, text[: len(text) - held])
            _write(log, rest)

    threading.Thread(target=work, name="endpoint.log", daemon=True).start()
    return os.fdopen(write, "wb")


class MaskedStream:
    """A text stream that writes to another one, without what `mask` takes out of each piece."""

    def __init__(self, stream: TextIO, mask: Callable[[str], str]) -> None:
        self._stream = stream
        self._mask = mask

    def write(self, text: str) -> int:
        """Write; return the length of what was given."""
        self._stream.write(self._mask(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write(log: BinaryIO, text: bytes) -> None:
    # On a full disk too the pipe is read on: the server would end with it.
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
