"""Exclude unreachable nodes that the others wait for, before the general time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from benchmark.fleet.barrier import Barrier
from benchmark.fleet.errors import Excluded
from benchmark.fleet.node import Reports
from benchmark.fleet.remote_run import RemoteRun

# How long nodes wait for one that cannot be reached, once they wait for nothing else.
GONE_S = 60.0

T = TypeVar("T")


class Reach:
    """Tracks which nodes of a run wait, and which are lost.

    `spared`: whether waiting nodes could go on without a lost node and any others that are lost.
    """

    def __init__(
        self, runs: Sequence[RemoteRun], barrier: Barrier, reports: Reports, spared: Callable[[RemoteRun], bool]
    ) -> None:
        self._runs, self._barrier, self._reports, self._spared = runs, barrier, reports, spared
        self._waiting: set[str] = set()

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Mark a node as waiting for others, elsewhere than at the barrier."""
        self._waiting.add(name)
        try:
            yield
        finally:
            self._waiting.discard(name)

    def waits(self, run: RemoteRun) -> bool:
        """Return whether a node waits for others."""
        return run.node.name in self._waiting or self._barrier.is_here(run.node.name)

    async def answer(self, run: RemoteRun, asking: Coroutine[Any, Any, T]) -> T:
        """Return a node's answer; raise Excluded if it is lost for long and holds up all others.

        It may still load or measure: a further attempt fetches its files.
        """
        answer = asyncio.ensure_future(asking)
        gone_since: float | None = None
        try:
            while not (await asyncio.wait({answer}, timeout=min(1.0, GONE_S)))[0]:
                gone_since = (gone_since or time.monotonic()) if self._holds_up(run) else None
                if gone_since is not None and time.monotonic() - gone_since > GONE_S:
                    self._reports.message(run.node.name, "unreachable, excluded")
                    raise Excluded(
                        f"The SSH connection is lost ({run.lost.rstrip('.')}), and the other nodes had been ready for "
                        f"{GONE_S:g} s: they went on without it."
                    )
            return answer.result()
        finally:
            if not answer.done():
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)

    def _holds_up(self, run: RemoteRun) -> bool:
        """Return whether a node is lost, and all others wait only for it and any others that are lost.

        While a reachable node still loads, waiting for an unreachable one costs nothing.
        """
        there = [one for one in self._runs if self._barrier.has(one.node.name)]
        return bool(run.lost) and all(one.lost or self.waits(one) for one in there) and self._spared(run)
