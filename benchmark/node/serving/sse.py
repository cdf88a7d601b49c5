"""Server-sent events: the lines in which a server streams its answer (WHATWG HTML, section 9.2)."""

from __future__ import annotations


class EventParser:
    """Cuts the bytes of a stream into the data of its events, wherever the network cut them.

    Only `data` is kept, lines of one event joined by a line feed; comments (keep-alives) and other fields are skipped.
    Lines end with LF or CRLF. What comes after the last empty line is no event, as the standard says: it was cut.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """Return the data of the events that these bytes complete, in order."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        return events
