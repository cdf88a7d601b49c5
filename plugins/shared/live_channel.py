"""A pipe for the nodes' progress, from the workers of a play to the process that started them.

ansible-core's own queue carries only lines to print and results of tasks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import checkout  # noqa: F401 # puts the checkout on the path

from benchmark.progress import Progress

# A pipe writes up to this many bytes atomically, so that messages of many workers never mix.
PIPE_BUF = 4096
_READ = 1 << 16


class Channel:
    """Both ends of the pipe, which forked workers inherit. Sending never blocks: a full pipe drops the message."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)
        self._rest = b""

    def send(self, node: str, progress: Progress) -> None:
        """Send a node's progress. If the pipe is full the message is lost; another one follows."""
        message = json.dumps([node, *vars(progress).values()]).encode() + b"\n"
        if len(message) <= PIPE_BUF:
            try:
                os.write(self._writer, message)
            except OSError:
                return

    def receive(self) -> Iterator[tuple[str, Progress]]:
        """Yield what has arrived since the last call, without waiting."""
        while True:
            try:
                read = os.read(self.reader, _READ)
            except OSError:
                return
            *lines, self._rest = (self._rest + read).split(b"\n")
            for line in lines:
                node, *progress = json.loads(line)
                yield str(node), Progress(*progress)


# Opened by the callback `benchmark_live` before there is any worker; None: it is not active.
channel: Channel | None = None


def open_channel() -> Channel:
    """Return the channel; the first call creates it."""
    global channel
    if channel is None:
        channel = Channel()
    return channel
