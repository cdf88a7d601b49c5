"""All nodes of a run: one coroutine for each, which reads from top to bottom, and a barrier between them.

What goes wrong with a node is an exception in its coroutine, and becomes its `failure.json` at once; the others go on.
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

# The role that failures are of.
STAGE = "benchmark"
# How long after the start a node that could not be reached before is still looked for.
LATE_S = 30.0
# How often a run is to say how far it is: what that costs the controller does not grow with the nodes.
PROGRESS_S_PER_NODE, PROGRESS_S = 0.05, (1, 10)


@dataclass
class Outcome:
    """The nodes whose files were fetched and whose runs completed, and why others failed."""

    fetched: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    """Whether one of them failed because the run was stopped."""


class Measurement:
    """The runs of all nodes that are to measure. `interruption`: how a sentence begins that says what stopped them."""

    stopped: ClassVar[str] = "It was stopped; the others went on."
    """What follows the reason why a node was excluded."""

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
        """Return once every node has its files here or has failed.

        `watch` returns when the controller's process is gone: then nothing more is done, and ControllerGone is raised.
        """
        self._tasks = [asyncio.ensure_future(self._one(run)) for run in self._runs]
        watching = asyncio.ensure_future(watch()) if watch else None
        nodes = asyncio.ensure_future(asyncio.wait(self._tasks)) if self._tasks else None
        try:
            # Each has begun before any can be stopped.
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
        """Have every node that has not finished stopped, and what there is fetched."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    async def _one(self, run: RemoteRun) -> None:
        """Take a node through all, and keep what became of it."""
        name, failure = run.node.name, ""
        try:
            failure = await self._failure(run)
        except asyncio.CancelledError:
            if not self._abandoned:
                failure = await stop_interrupted(run, self._interruption())
                self.outcome.interrupted |= bool(failure)
        except Exception as error:  # a fault of this program's own is to cost no other node its result
            failure = fault(error, run.node)
        finally:
            self._barrier.leave(name)
            self._giving_way.hear(name, None)
            run.close()
        if self._abandoned:
            return
        if failure:
            self.outcome.failures[name] = failure
            with suppress(OSError):  # that the disk here is full is seen with the summary; the outcome says the reason
                write_record(run.node.place / FAILURE, Failure(node=name, stage=STAGE, reason=failure[:4000]))
        else:
            self.outcome.fetched.append(name)
        self._finished(name, not failure)

    async def _failure(self, run: RemoteRun) -> str:
        """Measure on one node; return why it failed, or nothing."""
        try:
            await self._measure(run)
        except (Excluded, Refused) as excluded:
            self._barrier.leave(run.node.name)
            return await exclude(run, str(excluded), self.stopped)
        except (NodeError, InputError, OSError) as error:
            return reason_of(error, run.node)
        except Exception as error:  # a fault of this program's own is to leave nothing running there
            return await exclude(run, fault(error, run.node), self.stopped)
        return ""

    async def _measure(self, run: RemoteRun) -> None:
        """From the start of a node's run to its fetched files."""
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
            # It waits for nobody any more.
            self._barrier.leave(run.node.name)
            state = await self._until_end(run)
        except Ended as ended:
            state = ended.state
        self._barrier.leave(run.node.name)
        await run.finish(state)

    async def _adopts(self, run: RemoteRun) -> bool:
        """Return whether what an earlier attempt left on the node is taken over."""
        return run.node.order.attempt > 1 and await run.adopt()

    async def _started(self, run: RemoteRun) -> None:
        """Do what is to be done before a node loads. Raises Excluded where it cannot."""

    async def _go_on(self, run: RemoteRun) -> RunOrder:
        """Let a node begin with the step that all agree on, now that what it had measured is here; return its order."""
        run.node = await self._next_step.agree(run.node)
        order = run.node.order
        if order.first_step > 1:
            steps = order.first_step - 1 + order.measurements
            self._reports.message(run.node.name, f"goes on with step {order.first_step} of {steps}")
        return order

    async def _measure_together(self, run: RemoteRun, repeat: int) -> bool:
        """Have the node begin a repeat when all others do; return whether it wants to.

        Raises Excluded where it cannot take part.
        """
        name = run.node.name
        facts = await (self._until_all_ready(run) if repeat == 1 else self._ready_with_all(run, repeat))
        if facts is None:
            return False
        # Now, since nobody loads any more, whom a round trip would wait for.
        await self._starts.read_clock(run, repeat, facts)
        await self._barrier.wait(name)
        if run.node.order.solo and repeat == 1:
            self._starts.require_no_drift(run)
            await self._starts.measure_alone(run)
            await self._barrier.wait(name)
        # How long it takes to speak to all, and to hear from each, is tried out just before the start is agreed on.
        await self._starts.try_out(run)
        await self._barrier.wait(name)
        unix_ns = self._agree(run, repeat).start_unix_ns
        within_s = max(0.0, (unix_ns - time.time_ns()) / 1e9) + LATE_S
        try:
            await run.go(repeat, unix_ns + self._starts.offsets_ns[name], within_s)
        except TimeoutError:
            why = run.lost or "took the word to start and gave no answer"
            raise Excluded(unreachable(why, run.node.ssh.address)) from None
        self._last_start_unix_ns[name] = unix_ns
        return True

    async def _until_all_ready(self, run: RemoteRun) -> str | None:
        """Return what the node says it is, once all are ready; until then it may have to give way to an older run."""
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
            self._reports.message(name, "gives way to an older run, for which another node waits")
            await run.withdraw()
            self._giving_way.hear(name, None)
            with self._reach.waiting(name):
                await self._giving_way.is_over()
            await run.start()

    async def _ready_with_all(self, run: RemoteRun, repeat: int) -> str | None:
        """Return what the node says it is, once all are ready; at once None where it takes part in no more repeats."""
        facts = await self._until_ready(run, repeat)
        if facts.strip() == OVER:
            return None
        # Whatever it said last: it waits for nobody else any more.
        self._giving_way.hear(run.node.name, None)
        await self._barrier.wait(run.node.name)
        return facts

    def _progress(self, node: str, before: Progress | None, now: Progress) -> None:
        self._giving_way.hear(node, now)
        self._report(node, before, now)

    async def _until_ready(self, run: RemoteRun, repeat: int) -> str:
        """Return what the node says it is."""
        limit, since_ns = self._waits_since(run, repeat)
        return await self._starts.until_ready(run, repeat, limit, since_ns)

    def _waits_since(self, run: RemoteRun, repeat: int) -> tuple[str, int]:
        """Return which setting limits how long a node takes to be ready for a repeat, and since when."""
        if repeat == 1:
            return "benchmark_sync_timeout_s", run.started_unix_ns
        return "benchmark_timeout_s", self._last_start_unix_ns[run.node.name]

    def _spared(self, run: RemoteRun) -> bool:
        """Return whether others that wait can go on without a node that is lost, and such as are lost too."""
        return any(self._reach.waits(one) for one in self._runs)

    def _agree(self, run: RemoteRun, repeat: int) -> AgreedStart:
        return self._starts.agree(run, repeat)

    async def _until_end(self, run: RemoteRun) -> str:
        """Return how the run ended. Raises NodeError where it does not."""
        order, timeout_s = run.node.order, run.node.order.resolved.settings.benchmark_timeout_s
        if order.wait_s is None:
            limit_s, limit = run.node.limit_s + run.node.busy_s + GRACE_S, ""
        else:
            # It is past its last start. The limit on the node has room for all that it waited for before.
            limit_s, limit = timeout_s, "benchmark_timeout_s = "
        with suppress(TimeoutError):
            return await run.until_end(limit_s - self._since_start_s(run))
        if run.lost:
            # It may have ended in time, and be back in a moment.
            with suppress(TimeoutError):
                return await run.until_end(GRACE_S)
            lost = f"the SSH connection is lost ({run.lost.rstrip('.')})"
            raise NodeError(f"It did not end within {limit_s} s, as far as is known: {lost}. {run.node.stays}")
        await run.stop()
        raise NodeError(f"The benchmark hung: it was stopped after {limit}{limit_s} s.")

    def _since_start_s(self, run: RemoteRun) -> float:
        """Return how long ago the last start was that the node was sent, in seconds; 0 where there was none."""
        start_unix_ns = self._last_start_unix_ns.get(run.node.name)
        return 0 if start_unix_ns is None else (time.time_ns() - start_unix_ns) / 1e9


def progress_every_s(count: int) -> int:
    """Return how often each of `count` nodes' runs is to say how far it is, in seconds."""
    return min(max(PROGRESS_S[0], math.ceil(PROGRESS_S_PER_NODE * count)), PROGRESS_S[1])
