"""A pipe from the workers of a play to the process that started them: how far each node is.

ansible-core's own queue carries lines to print and results of tasks, and nothing in between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import checkout  # noqa: F401 # puts the checkout on the path

from benchmark.progress import Progress

# What a pipe takes at once, so that messages of many workers never mix.
PIPE_BUF = 4096
_READ = 1 << 16


class Channel:
    """Both ends; workers inherit them when they are forked. Sending never waits: what is not read is dropped."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)
        self._rest = b""

    def send(self, node: str, progress: Progress) -> None:
        """Report how far a node is. A message that finds the pipe full is lost; the next look sends another."""
        message = json.dumps([node, *vars(progress).values()]).encode() + b"\n"
        if len(message) <= PIPE_BUF:
            try:
                os.write(self._writer, message)
            except OSError:
                return

    def receive(self) -> Iterator[tuple[str, Progress]]:
        """Yield what has come since the last call, without waiting."""
        while True:
            try:
                read = os.read(self.reader, _READ)
            except OSError:
                return
            *lines, self._rest = (self._rest + read).split(b"\n")
            for line in lines:
                node, *progress = json.loads(line)
                yield str(node), Progress(*progress)


# Opened by the callback `benchmark_live`, before any worker is there; None: nobody listens.
channel: Channel | None = None


def open_channel() -> Channel:
    """Return the channel; the first call makes it."""
    global channel
    if channel is None:
        channel = Channel()
    return channel
