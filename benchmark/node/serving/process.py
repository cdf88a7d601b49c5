"""The process of a server that the benchmark starts itself: started, watched, stopped; it writes to endpoint.log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmark.node.serving import keeper
from benchmark.node.serving.masking import masked_into
from benchmark.node.serving.words import causes, is_mild, points_elsewhere, without_frames, without_prefix, written
from benchmark.node.watch.oom import OomWatch
from benchmark.rundir import SERVER_ENDED
from benchmark.secret_settings import ENVIRONMENT, MASK

LOG = "endpoint.log"
SERVER = "The server (benchmark_endpoint_start)"
LOOK_BYTES = 2**18
GRACE_S = 10.0
"""Seconds between SIGTERM and SIGKILL; start.sh leaves a run that is stopped thirty to end."""


class ServerProcess:
    """A command of the shell, in a session of its own. It ends at `stop`, or when this process ends in whatever way."""

    def __init__(
        self,
        command: str,
        directory: Path,
        grace_s: float = GRACE_S,
        name: str = SERVER,
        secret: Sequence[str] = (),
    ) -> None:
        """Start the command; its output goes to a new endpoint.log in `directory`, without what is `secret`.

        `name` begins sentences about it.
        """
        self.log = directory / LOG
        self._name = name
        self._grace_s = grace_s
        self._oom = OomWatch()
        # What is installed beside this Python (`transformers serve`) is found too, after what is found anyway.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        log, ended = self.log.open("wb", buffering=0), directory / SERVER_ENDED
        # A server may print its environment, or the key that it was asked with.
        output = masked_into(log, secret) if secret else log
        with output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, str(os.getpid()), str(grace_s), str(ended), command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": path},
                # The signals that this run's process group gets are not the server's: stop() decides when it ends.
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """Return how the server ended and its log's last words, in a sentence; None while it runs."""
        code = self._keeper.poll()
        if code is None:
            return None
        return f"{self._name} {self._how(code)}. {self.last_words()}"

    def end(self) -> str | None:
        """Return the same of a server that answers no more, once the last of its processes has ended.

        None: it goes on after the time in which that has to be.
        """
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(self._grace_s + 5)
        return self.ended()

    def _how(self, code: int) -> str:
        if code > 128:
            killer = self._oom.killer() if code - 128 == signal.SIGKILL else ""
            return f"was ended by signal {code - 128}{killer}"
        # Of a server of several processes the kernel ends the largest. The others see that it is gone, and not why.
        meanwhile = "; meanwhile the kernel's OOM killer ended something: memory ran out" if self._oom.kills() else ""
        return f"ended with exit code {code}{meanwhile}"

    def last_words(self, lines: int = 5, characters: int = 800) -> str:
        """Return the log's first error, if there is one, and its end, a sentence each.

        A server of several processes says last that one of them failed, and why long before. What tracebacks are made
        of beside the error is left out, and so is what says no more than the error does.
        """
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LOOK_BYTES))
            found = written(log.read().decode("utf-8", errors="replace"))
        if not found:
            return f"{LOG} is empty."
        first = next(iter(causes(found)), "")
        unexplained = points_elsewhere(first)
        end = [line.strip() for line in without_frames(found)]
        if first and not unexplained:
            end = _beside(first, end, ended=self._keeper.poll() is not None)
        said = [f"The first error in {LOG}: {first[:characters]}"] if first else []
        new = {without_prefix(line).strip(): line for line in end}
        end = [line for own, line in new.items() if f" {own} " not in f" {first} "][-lines:]
        while len(end) > 1 and len(" | ".join(end)) > characters:
            del end[0]
        said += [f"The end of {LOG}: {' | '.join(end)[-characters:]}"] if end else []
        if MASK in first:
            said.append(f"({MASK} stands for a secret from {ENVIRONMENT}, or one sent to the server.)")
        if unexplained:
            said.append("No line says why: one of its processes may have been killed (see dmesg).")
        return " ".join(said)

    def stop(self) -> None:
        """End the server and everything that it started; return when nothing of it is left."""
        if self._keeper.poll() is None:
            self._keeper.terminate()
            try:
                self._keeper.wait(self._grace_s + 10)
            except subprocess.TimeoutExpired:
                print(f"The server of process {self._keeper.pid} does not end: check the node.", file=sys.stderr)


def _beside(first: str, lines: Sequence[str], ended: bool) -> list[str]:
    """Return the lines that were written after an error, and may say more than it.

    What is no error does where the server goes on: it shows how far it came.
    """
    at = next((number for number, line in enumerate(lines) if first.startswith(line)), -1)
    return [line for line in lines[at + 1 :] if not points_elsewhere(line) and not (ended and is_mild(line))]
