"""Nodes that cannot be reached while the others wait for them: those go on without, before a time limit is up."""

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

# How long nodes wait, once they wait for nothing else, for one that cannot be reached any more.
GONE_S = 60.0

T = TypeVar("T")


class Reach:
    """The nodes of a run, and whom they wait for.

    `spared`: whether others that wait can go on without a node and such as are lost too.
    """

    def __init__(
        self, runs: Sequence[RemoteRun], barrier: Barrier, reports: Reports, spared: Callable[[RemoteRun], bool]
    ) -> None:
        self._runs, self._barrier, self._reports, self._spared = runs, barrier, reports, spared
        self._waiting: set[str] = set()

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Say that a node waits for others elsewhere than at the barrier."""
        self._waiting.add(name)
        try:
            yield
        finally:
            self._waiting.discard(name)

    def waits(self, run: RemoteRun) -> bool:
        """Return whether a node waits for others."""
        return run.node.name in self._waiting or self._barrier.is_here(run.node.name)

    async def answer(self, run: RemoteRun, asking: Coroutine[Any, Any, T]) -> T:
        """Return what a node answers; raise Excluded where it is lost for long and holds all others up.

        It may load or measure all the same: a further attempt fetches what it has.
        """
        answer = asyncio.ensure_future(asking)
        gone_since: float | None = None
        try:
            while not (await asyncio.wait({answer}, timeout=min(1.0, GONE_S)))[0]:
                gone_since = (gone_since or time.monotonic()) if self._holds_up(run) else None
                if gone_since is not None and time.monotonic() - gone_since > GONE_S:
                    self._reports.message(run.node.name, "out of reach, excluded")
                    raise Excluded(
                        f"The SSH connection is lost ({run.lost.rstrip('.')}), and others were ready to go on for "
                        f"{GONE_S:g} s: they went on without it."
                    )
            return answer.result()
        finally:
            if not answer.done():
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)

    def _holds_up(self, run: RemoteRun) -> bool:
        """Return whether a node is lost, and others wait that could go on but for it and such as are lost too.

        As long as one loads that can be reached, it costs nothing to wait for one that cannot.
        """
        there = [one for one in self._runs if self._barrier.has(one.node.name)]
        return bool(run.lost) and all(one.lost or self.waits(one) for one in there) and self._spared(run)
