"""Measure on all nodes of a run: one coroutine per node, synchronised by a barrier.

A failure of a node is an exception in its coroutine and becomes its `failure.json` at once; the others go on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.fleet.barrier import Barrier
from benchmark.fleet.errors import ControllerGone, Ended, Excluded, NodeError, Refused
from benchmark.fleet.failing import exclude, fault, reason_of, stop_interrupted
from benchmark.fleet.giving_way import GivingWay
from benchmark.fleet.next_step import NextStep
from benchmark.fleet.node import Node, Reports
from benchmark.fleet.reach import Reach
from benchmark.fleet.remote_run import GRACE_S, RemoteRun
from benchmark.fleet.session import calls_at_once
from benchmark.fleet.ssh import unreachable
from benchmark.fleet.starts import Starts
from benchmark.progress import Progress
from benchmark.records import AgreedStart, Failure
from benchmark.rundir import FAILURE, OVER, RunOrder

# The stage of these failures.
STAGE = "benchmark"
# How long after the start the controller still tries to reach a node to tell it.
LATE_S = 30.0
# How often a run reports its progress: less often with more nodes, so that the controller's cost stays the same.
PROGRESS_S_PER_NODE, PROGRESS_S = 0.05, (1, 10)


@dataclass
class Outcome:
    """The nodes whose runs completed and were fetched, and why the others failed."""

    fetched: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    """Whether a node failed because the run was stopped."""


class Measurement:
    """The runs of all nodes. `interruption` begins a sentence that says what stopped them."""

    stopped: ClassVar[str] = "It was stopped; the others went on."
    """Follows the reason for excluding a node."""

    def __init__(
        self,
        run_dir: Path,
        nodes: Sequence[Node],
        reports: Reports,
        *,
        finished: Callable[[str, bool], None] = lambda node, succeeded: None,
        interruption: Callable[[], str] = lambda: "Interrupted",
    ) -> None:
        self.run_dir, self.outcome = run_dir, Outcome()
        self._reports = Reports(self._progress, reports.message)
        self._report, self._finished, self._interruption = reports.progress, finished, interruption
        self._giving_way = GivingWay(nodes[0].order.run_id if nodes else "")
        self._barrier = Barrier(node.name for node in nodes if node.order.wait_s is not None)
        self._next_step = NextStep(run_dir, self._barrier)
        calls = calls_at_once()
        progress_s = progress_every_s(len(nodes))
        self._runs = [RemoteRun(node, self._reports, calls[node.ssh.through_jump], progress_s) for node in nodes]
        self._reach = Reach(self._runs, self._barrier, self._reports, self._spared)
        self._starts = Starts(run_dir, self._runs, self._barrier, self._reports, self._reach)
        self._abandoned = self._stopped = False
        self._last_start_unix_ns: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, watch: Callable[[], Awaitable[None]] | None = None) -> Outcome:
        """Return once every node's files are fetched or it has failed.

        `watch` returns when the controlling process is gone: then all work stops and ControllerGone is raised.
        """
        self._tasks = [asyncio.ensure_future(self._one(run)) for run in self._runs]
        watching = asyncio.ensure_future(watch()) if watch else None
        nodes = asyncio.ensure_future(asyncio.wait(self._tasks)) if self._tasks else None
        try:
            # Let each begin before any can be stopped.
            await asyncio.sleep(0)
            if self._stopped:
                self.interrupt()
            if nodes is not None:
                await asyncio.wait({nodes, *([watching] if watching else [])}, return_when=asyncio.FIRST_COMPLETED)
                if not nodes.done():
                    if watching:
                        watching.result()
                    self._abandoned = True
                    self.interrupt()
                    await nodes
                    raise ControllerGone
            for task in self._tasks:
                task.result()
            return self.outcome
        finally:
            if watching:
                watching.cancel()

    def interrupt(self) -> None:
        """Stop every node that has not finished, and fetch its files."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    async def _one(self, run: RemoteRun) -> None:
        """Measure on one node and record its outcome."""
        name, failure = run.node.name, ""
        try:
            failure = await self._failure(run)
        except asyncio.CancelledError:
            if not self._abandoned:
                failure = await stop_interrupted(run, self._interruption())
                self.outcome.interrupted |= bool(failure)
        except Exception as error:  # a bug must not cost other nodes their results
            failure = fault(error, run.node)
        finally:
            self._barrier.leave(name)
            self._giving_way.hear(name, None)
            run.close()
        if self._abandoned:
            return
        if failure:
            self.outcome.failures[name] = failure
            with suppress(OSError):  # the summary will report a full disk; the outcome has the reason
                write_record(run.node.place / FAILURE, Failure(node=name, stage=STAGE, reason=failure[:4000]))
        else:
            self.outcome.fetched.append(name)
        self._finished(name, not failure)

    async def _failure(self, run: RemoteRun) -> str:
        """Measure on one node; return why it failed, or an empty text."""
        try:
            await self._measure(run)
        except (Excluded, Refused) as excluded:
            self._barrier.leave(run.node.name)
            return await exclude(run, str(excluded), self.stopped)
        except (NodeError, InputError, OSError) as error:
            return reason_of(error, run.node)
        except Exception as error:  # a bug must not leave a run on the node
            return await exclude(run, fault(error, run.node), self.stopped)
        return ""

    async def _measure(self, run: RemoteRun) -> None:
        """Take a node from the start of its run to its fetched files."""
        order = run.node.order
        try:
            if not await self._adopts(run):
                if order.attempt > 1 and order.resolved.profile.sweep:
                    order = await self._go_on(run)
                await run.start()
                await self._started(run)
                if order.wait_s is not None:
                    for repeat in range(1, order.measurements + 1):
                        if not await self._measure_together(run, repeat):
                            break
            # It no longer waits for others.
            self._barrier.leave(run.node.name)
            state = await self._until_end(run)
        except Ended as ended:
            state = ended.state
        self._barrier.leave(run.node.name)
        await run.finish(state)

    async def _adopts(self, run: RemoteRun) -> bool:
        """Return whether an earlier attempt's run on the node is adopted."""
        return run.node.order.attempt > 1 and await run.adopt()

    async def _started(self, run: RemoteRun) -> None:
        """Do what must be done before a node loads. Raises Excluded if it cannot be done."""

    async def _go_on(self, run: RemoteRun) -> RunOrder:
        """Make a node begin with the step that all agree on, after fetching its earlier results; return its order."""
        run.node = await self._next_step.agree(run.node)
        order = run.node.order
        if order.first_step > 1:
            steps = order.first_step - 1 + order.measurements
            self._reports.message(run.node.name, f"resumes with step {order.first_step} of {steps}")
        return order

    async def _measure_together(self, run: RemoteRun, repeat: int) -> bool:
        """Make the node begin a repeat together with all others; return whether it takes part.

        Raises Excluded if it cannot.
        """
        name = run.node.name
        facts = await (self._until_all_ready(run) if repeat == 1 else self._ready_with_all(run, repeat))
        if facts is None:
            return False
        # Only now, since round trips are slow while a node loads.
        await self._starts.read_clock(run, repeat, facts)
        await self._barrier.wait(name)
        if run.node.order.solo and repeat == 1:
            self._starts.require_no_drift(run)
            await self._starts.measure_alone(run)
            await self._barrier.wait(name)
        # Just before agreeing on the start, measure how long it takes to talk to all nodes.
        await self._starts.try_out(run)
        await self._barrier.wait(name)
        unix_ns = self._agree(run, repeat).start_unix_ns
        within_s = max(0.0, (unix_ns - time.time_ns()) / 1e9) + LATE_S
        try:
            await run.go(repeat, unix_ns + self._starts.offsets_ns[name], within_s)
        except TimeoutError:
            why = run.lost or "accepted the start time but gave no answer"
            raise Excluded(unreachable(why, run.node.ssh.address)) from None
        self._last_start_unix_ns[name] = unix_ns
        return True

    async def _until_all_ready(self, run: RemoteRun) -> str | None:
        """Return the node's facts once all are ready; until then it may have to give way to an older run."""
        name = run.node.name
        while True:
            ready = asyncio.ensure_future(self._ready_with_all(run, 1))
            others = asyncio.ensure_future(self._giving_way.has_to(name))
            try:
                await asyncio.wait({ready, others}, return_when=asyncio.FIRST_COMPLETED)
                if ready.done():
                    return ready.result()
            finally:
                ready.cancel()
                others.cancel()
                await asyncio.gather(ready, others, return_exceptions=True)
            self._reports.message(name, "gives way to an older run that another node is waiting for")
            await run.withdraw()
            self._giving_way.hear(name, None)
            with self._reach.waiting(name):
                await self._giving_way.is_over()
            await run.start()

    async def _ready_with_all(self, run: RemoteRun, repeat: int) -> str | None:
        """Return the node's facts once all are ready; None, without waiting, if it takes part in no more repeats."""
        facts = await self._until_ready(run, repeat)
        if facts.strip() == OVER:
            return None
        # Whatever its last progress was: it no longer waits for another run.
        self._giving_way.hear(run.node.name, None)
        await self._barrier.wait(run.node.name)
        return facts

    def _progress(self, node: str, before: Progress | None, now: Progress) -> None:
        self._giving_way.hear(node, now)
        self._report(node, before, now)

    async def _until_ready(self, run: RemoteRun, repeat: int) -> str:
        """Return the node's facts."""
        limit, since_ns = self._waits_since(run, repeat)
        return await self._starts.until_ready(run, repeat, limit, since_ns)

    def _waits_since(self, run: RemoteRun, repeat: int) -> tuple[str, int]:
        """Return the setting that limits how long a node takes to be ready for a repeat, and since when it counts."""
        if repeat == 1:
            return "benchmark_sync_timeout_s", run.started_unix_ns
        return "benchmark_timeout_s", self._last_start_unix_ns[run.node.name]

    def _spared(self, run: RemoteRun) -> bool:
        """Return whether waiting nodes could go on without this lost node and any others that are lost."""
        return any(self._reach.waits(one) for one in self._runs)

    def _agree(self, run: RemoteRun, repeat: int) -> AgreedStart:
        return self._starts.agree(run, repeat)

    async def _until_end(self, run: RemoteRun) -> str:
        """Return how the run ended. Raises NodeError if it does not end in time."""
        order, timeout_s = run.node.order, run.node.order.resolved.settings.benchmark_timeout_s
        if order.wait_s is None:
            limit_s, limit = run.node.limit_s + run.node.busy_s + GRACE_S, ""
        else:
            # It is past its last start. The limit on the node also includes the time that it waited before.
            limit_s, limit = timeout_s, "benchmark_timeout_s = "
        with suppress(TimeoutError):
            return await run.until_end(limit_s - self._since_start_s(run))
        if run.lost:
            # It may have ended in time, and be reachable again in a moment.
            with suppress(TimeoutError):
                return await run.until_end(GRACE_S)
            lost = f"the SSH connection is lost ({run.lost.rstrip('.')})"
            raise NodeError(f"It did not end within {limit_s} s, as far as is known: {lost}. {run.node.stays}")
        await run.stop()
        raise NodeError(f"The benchmark hung: it was stopped after {limit}{limit_s} s.")

    def _since_start_s(self, run: RemoteRun) -> float:
        """Return the seconds since the last start that the node was sent; 0 if there was none."""
        start_unix_ns = self._last_start_unix_ns.get(run.node.name)
        return 0 if start_unix_ns is None else (time.time_ns() - start_unix_ns) / 1e9


def progress_every_s(count: int) -> int:
    """Return how often each of `count` nodes' runs reports its progress, in seconds."""
    return min(max(PROGRESS_S[0], math.ceil(PROGRESS_S_PER_NODE * count)), PROGRESS_S[1])
