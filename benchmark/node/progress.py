"""Report the run's progress: on a terminal, and in `progress.json` for processes that wait elsewhere."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from benchmark.progress import Progress, describe, time_left_s

FILE = "progress.json"
# Writing takes time between queries; users need it no more often.
INTERVAL_S = 0.5


class ProgressWriter:
    """`stage` says what the run is doing, `advance` how many queries are done."""

    def __init__(self, node: str, directory: Path) -> None:
        self._node = node
        self._path = directory / FILE
        self._terminal = sys.stderr.isatty()
        self._state = ""
        self._total = 0
        self._least_s, self._most_s = 0.0, math.inf
        self._began = time.monotonic()
        self._written = 0.0

    def stage(self, state: str, total: int = 0) -> None:
        """Begin a stage of `total` queries (0: nothing to count)."""
        self._end_line()
        self._state, self._total, self._began = state, total, time.monotonic()
        self._least_s, self._most_s = 0.0, math.inf
        self._write(0, time.monotonic())
        if not self._terminal:
            print(f"{time.strftime('%H:%M:%S')} {self._node}: {state}", file=sys.stderr, flush=True)

    def begin(self, least_s: float = 0.0, queries: int = 0, most_s: float = math.inf) -> None:
        """Report that the stage's queries begin now, and what is known about them.

        Their minimum and maximum duration, in seconds, and their number (0: the number given to `stage`).
        """
        self._least_s, self._most_s, self._began = least_s, most_s, time.monotonic()
        self._total = queries or self._total
        # Not written: nothing may use the disk between an agreed start and the first query.

    def advance(self, done: int, latency_ms: float | None = None) -> None:
        """Report that `done` of the stage's queries are done; most calls return at once, so that they cost nothing."""
        now = time.monotonic()
        if now - self._written >= INTERVAL_S or done == self._total:
            self._write(done, now, latency_ms)

    def finish(self, state: str) -> None:
        """Report that the run has ended."""
        self.stage(state)

    def _write(self, done: int, now: float, latency_ms: float | None = None) -> None:
        self._written = now
        elapsed = now - self._began
        progress = Progress(
            state=self._state,
            done=done,
            total=self._total,
            qps=done / elapsed if done and elapsed > 0 else None,
            latency_ms=latency_ms,
            left_s=time_left_s(done, self._total, elapsed, self._least_s, self._most_s),
        )
        beside = self._path.with_suffix(".tmp")
        try:
            beside.write_text(progress.text(), encoding="utf-8")
            beside.replace(self._path)
        except OSError:
            pass  # a full disk must not end a run at its progress; writing the samples will report it
        if self._terminal:
            print(f"\r\033[K[{self._node}] {describe(progress)}", end="", file=sys.stderr, flush=True)

    def _end_line(self) -> None:
        if self._terminal and self._state:
            print(file=sys.stderr)
