"""Prepare the start of each repeat, and agree on it once for all nodes that are ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.cluster.drift import drift_reason
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.fleet.barrier import Barrier
from benchmark.fleet.errors import Excluded, Lost
from benchmark.fleet.node import Reports
from benchmark.fleet.reach import Reach
from benchmark.fleet.remote_run import RemoteRun
from benchmark.fleet.rendezvous import READY_FILE, agree, clock_offset, drift_of_ready, read_facts
from benchmark.records import AgreedStart, Drift, ReadyNode
from benchmark.rundir import of_repeat

# How many clocks are read at once: more would delay each other on the controller.
CLOCKS_AT_ONCE = 8
# The limit for trying out how long telling all nodes takes.
TRIAL_S = 5.0


class Starts:
    """The starts of a run's nodes, which wait for each other at a barrier."""

    def __init__(
        self, run_dir: Path, runs: Sequence[RemoteRun], barrier: Barrier, reports: Reports, reach: Reach
    ) -> None:
        self._run_dir, self._runs, self._barrier, self._reports = run_dir, runs, barrier, reports
        self._reach = reach
        self.offsets_ns: dict[str, int] = {}
        """How far each node's clock is ahead of the controller's."""
        self._clocks, self._turn = asyncio.Semaphore(CLOCKS_AT_ONCE), asyncio.Lock()
        self._agreed: dict[int, AgreedStart] = {}
        self._trial_began = 0.0
        self._drift: tuple[Drift, ...] | None = None

    async def until_ready(self, run: RemoteRun, repeat: int, limit: str, since_ns: int) -> str:
        """Return the node's facts once it is ready for a repeat.

        Raises Excluded if that takes longer than the setting `limit` allows, counted from `since_ns`.
        """
        limit_s = int(getattr(run.node.order.resolved.settings, limit))
        deadline = time.monotonic() + limit_s - (time.time_ns() - since_ns) / 1e9
        try:
            return await self._reach.answer(run, run.until_ready(repeat, deadline))
        except TimeoutError:
            self._reports.message(run.node.name, "not ready in time, stopped")
            reason = f"Not ready to measure within {limit} = {limit_s} s"
            if run.lost:
                raise Excluded(f"{reason}, and the SSH connection is lost: {run.lost}.") from None
            raise Excluded(f"{reason}: it was still {run.doing}.") from None

    async def read_clock(self, run: RemoteRun, repeat: int, facts: str) -> None:
        """Record the facts and the clock of a ready node. Raises Excluded if either is invalid."""
        async with self._clocks:
            trips = await run.read_clock()
        try:
            environment, (offset_ns, uncertainty_ns) = read_facts(facts), clock_offset(trips)
        except InputError as error:
            raise Excluded(str(error)) from None
        except ValueError:
            raise Excluded("The node's clock could not be read: date +%s%N must print nanoseconds.") from None
        self.offsets_ns[run.node.name] = offset_ns
        found = ReadyNode(
            node=run.node.name,
            launched_unix_ns=run.started_unix_ns,
            offset_ns=offset_ns,
            uncertainty_ns=uncertainty_ns,
            round_trips=len(trips),
            environment=environment,
            attempt=run.node.order.attempt,
        )
        write_record(run.node.place / of_repeat(READY_FILE, repeat), found)

    def require_no_drift(self, run: RemoteRun) -> None:
        """Raise Excluded for a node that differs from the others, before the turns, which take long."""
        if self._drift_fails(run):
            if self._drift is None:
                self._drift = drift_of_ready(self._run_dir)
            if _drifted(run.node.name, self._drift):
                raise self._not_alike(run, self._drift)

    async def measure_alone(self, run: RemoteRun) -> None:
        """Give a node its turn. Raises Excluded if it does not finish within its time limit."""
        limit_s = run.node.order.resolved.settings.benchmark_timeout_s
        with self._reach.waiting(run.node.name):
            await self._turn.acquire()
        try:
            await self._reach.answer(run, run.measure_alone(limit_s))
        except BaseException as error:
            # So that it gets no start.
            (run.node.place / READY_FILE).unlink(missing_ok=True)
            if isinstance(error, TimeoutError):
                lost = f", and the SSH connection is lost: {run.lost.rstrip('.')}" if run.lost else ""
                raise Excluded(f"Measuring alone did not end within benchmark_timeout_s = {limit_s} s{lost}.") from None
            raise
        finally:
            self._turn.release()

    async def try_out(self, run: RemoteRun) -> None:
        """Talk to a node, so that `agree` knows how long it takes to talk to all."""
        # All come here when the barrier opens; the first one sets the time.
        self._trial_began = self._trial_began or time.monotonic()
        try:
            async with asyncio.timeout(TRIAL_S):
                await run.read_clock(trips=1)
        except (TimeoutError, Lost):
            run.close()

    def agree(self, run: RemoteRun, repeat: int) -> AgreedStart:
        """Return the start of a repeat; the first call agrees on it for all nodes that are ready.

        Raises Excluded for a node that differs from the others.
        """
        if repeat not in self._agreed:
            ready = [one.node.name for one in self._runs if self._is_ready(one, repeat)]
            self._agreed[repeat] = agree(
                self._run_dir,
                ready,
                time.monotonic() - self._trial_began,
                # Only before the first repeat: nodes do not change between repeats.
                drift_fails=repeat == 1 and self._drift_fails(run),
                attempt=run.node.order.attempt,
                repeat=repeat,
            )
            self._trial_began = 0.0
        start = self._agreed[repeat]
        if run.node.name not in start.nodes:
            raise self._not_alike(run, start.drift)
        return start

    def _is_ready(self, run: RemoteRun, repeat: int) -> bool:
        path = run.node.place / of_repeat(READY_FILE, repeat)
        return self._barrier.has(run.node.name) and path.is_file()

    def _drift_fails(self, run: RemoteRun) -> bool:
        return run.node.order.resolved.settings.benchmark_drift == "fail"

    def _not_alike(self, run: RemoteRun, drift: Iterable[Drift]) -> Excluded:
        self._reports.message(run.node.name, "differs from the other nodes, stopped")
        return Excluded(_drifted(run.node.name, drift))


def _drifted(name: str, drift: Iterable[Drift]) -> str:
    """Return the reason for a node that differs from the others; empty if it does not."""
    own = [each for each in drift if any(name in names for names in each.values.values())]
    return f"Drift, and benchmark_drift is fail: {drift_reason(own)} Nothing was measured." if own else ""
