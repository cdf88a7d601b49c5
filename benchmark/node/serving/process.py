"""The process of a server that the run starts: started, watched and stopped; its output goes to endpoint.log."""

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
"""Seconds between SIGTERM and SIGKILL; start.sh gives a run that is being stopped thirty."""


class ServerProcess:
    """A shell command in its own session. It ends at `stop`, or when this process ends, however that happens."""

    def __init__(
        self,
        command: str,
        directory: Path,
        grace_s: float = GRACE_S,
        name: str = SERVER,
        secret: Sequence[str] = (),
    ) -> None:
        """Start the command; its output goes to a new endpoint.log in `directory`, with the `secret` values masked.

        `name` is the subject of sentences about it.
        """
        self.log = directory / LOG
        self._name = name
        self._grace_s = grace_s
        self._oom = OomWatch()
        # Programs installed beside this Python (`transformers serve`) are found too, after those on the PATH.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        log, ended = self.log.open("wb", buffering=0), directory / SERVER_ENDED
        # A server may print its environment, or the key of its requests.
        output = masked_into(log, secret) if secret else log
        with output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, str(os.getpid()), str(grace_s), str(ended), command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": path},
                # Signals to this run's process group must not reach the server: stop() ends it.
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """Return how the server ended and the last words of its log, in sentences; None while it runs."""
        code = self._keeper.poll()
        if code is None:
            return None
        return f"{self._name} {self._how(code)}. {self.last_words()}"

    def end(self) -> str | None:
        """Wait until a server that no longer answers has ended; return what `ended` returns. None: it did not end."""
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(self._grace_s + 5)
        return self.ended()

    def _how(self, code: int) -> str:
        if code > 128:
            killer = self._oom.killer() if code - 128 == signal.SIGKILL else ""
            return f"was ended by signal {code - 128}{killer}"
        # If a server has several processes, the kernel kills the largest. The others see that it is gone, but not why.
        meanwhile = "; meanwhile the kernel's OOM killer ended something: memory ran out" if self._oom.kills() else ""
        return f"ended with exit code {code}{meanwhile}"

    def last_words(self, lines: int = 5, characters: int = 800) -> str:
        """Return the log's first error, if it has one, and its end, in a sentence each.

        A server with several processes logs last that one of them failed, and long before that why. The frames of
        tracebacks are left out, and so are lines that only repeat the error.
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
        """End the server and everything that it started; return when none of its processes is left."""
        if self._keeper.poll() is None:
            self._keeper.terminate()
            try:
                self._keeper.wait(self._grace_s + 10)
            except subprocess.TimeoutExpired:
                print(f"The server of process {self._keeper.pid} does not end: check the node.", file=sys.stderr)


def _beside(first: str, lines: Sequence[str], ended: bool) -> list[str]:
    """Return the lines after the first error that may add to it.

    Lines with a log level below error are kept only while the server still runs: they show how far it got.
    """
    at = next((number for number, line in enumerate(lines) if first.startswith(line)), -1)
    return [line for line in lines[at + 1 :] if not points_elsewhere(line) and not (ended and is_mild(line))]
