"""A parser for server-sent events, in which a server streams its answer (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
MAX_OTHER_BYTES = 2**16


class Event(NamedTuple):
    """One event: its data, with lines joined by a line feed, and its type (empty: it has none)."""

    data: bytes
    type: str = ""


class EventParser:
    """Splits the bytes of a stream into events, wherever the network split them.

    Lines end with LF, CRLF or CR, and a byte order mark may precede any of them (the standard: the first). Comments
    (keep-alives), ids and retry times are skipped. Lines that do not belong to an event stream are kept in `other`, at
    most MAX_OTHER_BYTES of them: a server that answers in another form explains there why.
    """

    def __init__(self) -> None:
        self.other = b""
        self._rest = b""
        self._data: list[bytes] = []
        self._type = ""
        self._after_cr = False

    def feed(self, received: bytes) -> list[Event]:
        """Return the events that these bytes complete, in order."""
        if self._after_cr and received:
            # The carriage return has already ended its line: a line feed here would end another.
            received, self._after_cr = received.removeprefix(b"\n"), False
        if b"\r" in received:
            self._after_cr = received.endswith(b"\r")
            received = received.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [event for line in lines if (event := self._line(line)) is not None]

    def close(self) -> list[Event]:
        """Return the last event if the stream ends without the empty line after it.

        The standard drops it. But many servers omit the last empty line, and the last event may hold the usage.
        It may also be incomplete: the caller decides.
        """
        ended = [self._line(self._rest), self._line(b"")]
        self._rest = b""
        return [event for event in ended if event is not None]

    def _line(self, line: bytes) -> Event | None:
        if not line:
            data, type_ = self._data, self._type
            self._data, self._type = [], ""
            return Event(b"\n".join(data), type_) if data else None
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            return None
        if line.startswith(BOM):
            return self._line(line[len(BOM) :])
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(b"")
        elif name == b"event":
            self._type = value.decode("utf-8", errors="replace").strip()
        elif name == b"error":  # nonstandard: some servers send an error in place of an event
            self._data.append(value)
            self._type = "error"
        elif name not in (b"", b"id", b"retry"):
            self.other = (self.other + line + b"\n")[:MAX_OTHER_BYTES]
        return None
