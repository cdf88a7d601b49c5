"""Speak with a node in lines, without waiting for it: one process can speak with all of them at once."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

# What a node may say: its facts, and then a line of its progress now and then.
MOST_AT_ONCE = 400_000
MOST_PER_S = 10_000
# How long one that does not listen may keep the others waiting.
SAYING_S = 2.0
_READ = 1 << 16


class Speaker(ABC):
    """One end of a conversation. `fd` is readable where there is something to hear."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ended = False
        self.why = ""
        """Why it has ended, in words for people."""
        self._rest = b""
        self._heard = 0
        self._began = time.monotonic()
        os.set_blocking(fd, False)

    def hear(self) -> list[str]:
        """Return the lines that have come since; `ended` is set where no more will."""
        try:
            read = os.read(self.fd, _READ)
        except BlockingIOError:
            return []
        except OSError:
            read = b""
        self._heard += len(read)
        if self._heard > MOST_AT_ONCE + MOST_PER_S * (time.monotonic() - self._began):
            self.end()
            self.why = "it sends without end"
            return []
        *lines, self._rest = (self._rest + read).split(b"\n")
        if not read:
            self.ended, self.why = True, self._explain()
        return [line.decode(errors="replace") for line in lines]

    def expect(self, size: int) -> None:
        """Take so many bytes more than is usual: they were asked for."""
        self._heard -= size

    @abstractmethod
    def say(self, line: str) -> None:
        """Send a line, which is lost where nobody listens any more."""

    @abstractmethod
    def end(self) -> None:
        """Hang up. May be called again."""

    def _explain(self) -> str:
        return "the session ended"


class Session(Speaker):
    """With a command of this machine that speaks with the node: ssh."""

    def __init__(self, command: Sequence[Any]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin  # noqa: S101 # asked for, as are the others
        assert self._process.stdout  # noqa: S101
        assert self._process.stderr  # noqa: S101
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stderr.fileno(), False)
        self._pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        super().__init__(self._process.stdout.fileno())

    def say(self, line: str) -> None:
        """Send a line; of one that is longer than what a pipe holds, the rest is waited for a moment."""
        left, deadline = line.encode() + b"\n", time.monotonic() + SAYING_S
        with suppress(OSError):
            while left and time.monotonic() < deadline:
                left = left[self._pipes[0].write(left) or 0 :]
                if left:
                    select.select([], [self._pipes[0]], [], SAYING_S)

    def end(self) -> None:
        """End the process; the node's side ends with its standard input."""
        self.ended = True
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.close()

    def _explain(self) -> str:
        # Not until its end: a master connection that ssh left behind holds it open.
        said = b""
        with suppress(OSError):
            said = self._pipes[2].read(_READ) or b""
        return " ".join(said.decode(errors="replace").split())[-200:] or super()._explain()


class Commands(Speaker):
    """With a node to which there is no session: what it would say is asked for with one command after the other.

    `converse` is called in a thread with a function that sends a line to this end, and one that returns the next line
    from it (empty: hung up).
    """

    def __init__(self, converse: Callable[[Callable[[str], None], Callable[[], str]], None]) -> None:
        from_node, to_controller = os.pipe()
        from_controller, self._to_node = os.pipe()
        super().__init__(from_node)

        def work() -> None:
            with os.fdopen(from_controller) as asked, os.fdopen(to_controller, "w", buffering=1) as answers:
                try:
                    converse(lambda line: print(line, file=answers), lambda: asked.readline().rstrip("\n"))
                except Exception as error:  # whatever a connection's plugin raises ends the conversation
                    self.why = " ".join(str(error).split())[-200:]

        threading.Thread(target=work, daemon=True).start()

    def say(self, line: str) -> None:
        """Send a line to the thread."""
        with suppress(OSError):
            os.write(self._to_node, line.encode() + b"\n")

    def end(self) -> None:
        """Hang up; a command that is at work is left to its end."""
        self.ended = True
        for descriptor in (self.fd, self._to_node):
            with suppress(OSError):
                os.close(descriptor)
        self.fd = self._to_node = -1

    def _explain(self) -> str:
        return self.why or super()._explain()
