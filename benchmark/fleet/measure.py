"""All nodes of a run: one coroutine for each, which reads from top to bottom, and a barrier between them.

What goes wrong with a node is an exception in its coroutine, and becomes its `failure.json` at once; the others go on.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from benchmark.cluster.drift import drift_reason
from benchmark.errors import InputError
from benchmark.files import write_atomic, write_record
from benchmark.fleet.barrier import Barrier
from benchmark.fleet.errors import ControllerGone, Ended, Excluded, Lost, NodeError, Refused
from benchmark.fleet.giving_way import GivingWay
from benchmark.fleet.next_step import NextStep
from benchmark.fleet.node import Node, Reports
from benchmark.fleet.remote_run import GRACE_S, RemoteRun
from benchmark.fleet.rendezvous import (
    READY_FILE,
    agree,
    clock_offset,
    drift_of_ready,
    read_facts,
)
from benchmark.fleet.session import ANSWER_S, calls_at_once
from benchmark.fleet.ssh import unreachable
from benchmark.progress import Progress
from benchmark.records import AgreedStart, Drift, Failure, ReadyNode
from benchmark.rundir import FAILURE, OVER, RunOrder, of_repeat
from benchmark.unwritable import on_controller, remedy

# The role that failures are of.
STAGE = "benchmark"
# Beside a node's other files: where a fault came from that this program did not expect.
TRACEBACK = "controller_traceback.txt"
# Clocks that are read at once: more would wait for each other here.
CLOCKS_AT_ONCE = 8
# How long telling all is tried out at most.
TRIAL_S = 5.0
# How long after the start a node that could not be reached before is still looked for.
LATE_S = 30.0
# How long nodes that are ready for a further measurement wait for one that cannot be reached any more.
GONE_S = 60.0
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
        self._clocks, self._turn = asyncio.Semaphore(CLOCKS_AT_ONCE), asyncio.Lock()
        calls = calls_at_once()
        progress_s = progress_every_s(len(nodes))
        self._runs = [RemoteRun(node, self._reports, calls[node.ssh.through_jump], progress_s) for node in nodes]
        self._abandoned = self._stopped = False
        self._agreed: dict[int, AgreedStart] = {}
        self._offsets: dict[str, int] = {}
        self._last_start_unix_ns: dict[str, int] = {}
        self._trial_began = 0.0
        self._drift: tuple[Drift, ...] | None = None
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
                failure = await self._stop_interrupted(run)
                self.outcome.interrupted |= bool(failure)
        except Exception as error:  # a fault of this program's own is to cost no other node its result
            failure = f"{type(error).__name__}: {error}{_kept(run)}"
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
            return await self._exclude(run, str(excluded))
        except Lost as lost:
            return unreachable(str(lost), run.node.ssh.address)
        except TimeoutError:
            return unreachable(f"took a command and gave no answer within {ANSWER_S} s", run.node.ssh.address)
        except OSError as error:
            if remedy(error.errno):  # the only disk that is written to from here
                return on_controller(error, run.node.place)
            return (
                f"{error or type(error).__name__}" if error.filename else f"{type(error).__name__}: {error}{_kept(run)}"
            )
        except (NodeError, InputError) as error:
            return str(error) or type(error).__name__
        except Exception as error:  # a fault of this program's own is to leave nothing running there
            return await self._exclude(run, f"{type(error).__name__}: {error}{_kept(run)}")
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
        async with self._clocks:
            await self._read_clock(run, repeat, facts)
        await self._barrier.wait(name)
        if run.node.order.solo and repeat == 1:
            self._require_no_drift(run)
            await self._measure_alone(run)
            await self._barrier.wait(name)
        # How long it takes to speak to all, and to hear from each, is tried out just before the start is agreed on.
        await self._try_out(run)
        await self._barrier.wait(name)
        start = self._agree(run, repeat)
        if name not in start.nodes:
            self._reports.message(name, "not alike, stopped")
            raise Excluded(_drifted(name, start.drift))
        unix_ns = start.start_unix_ns
        within_s = max(0.0, (unix_ns - time.time_ns()) / 1e9) + LATE_S
        try:
            await run.go(repeat, unix_ns + self._offsets[name], within_s)
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
        settings = run.node.order.resolved.settings
        limit, since_ns = self._waits_since(run, repeat)
        limit_s = int(getattr(settings, limit))
        deadline = time.monotonic() + limit_s - (time.time_ns() - since_ns) / 1e9
        asking = asyncio.ensure_future(run.until_ready(repeat, deadline))
        try:
            if repeat > 1:
                await self._while_within_reach(run, asking)
            return await asking
        except TimeoutError:
            self._reports.message(run.node.name, "not ready in time, stopped")
            reason = f"Not ready to measure within {limit} = {limit_s} s"
            if run.lost:
                raise Excluded(f"{reason}, and the SSH connection is lost: {run.lost}.") from None
            raise Excluded(f"{reason}: it was still {run.doing}.") from None

    def _waits_since(self, run: RemoteRun, repeat: int) -> tuple[str, int]:
        """Return which setting limits how long a node takes to be ready for a repeat, and since when."""
        if repeat == 1:
            return "benchmark_sync_timeout_s", run.started_unix_ns
        return "benchmark_timeout_s", self._agreed[repeat - 1].start_unix_ns

    async def _while_within_reach(self, run: RemoteRun, asking: asyncio.Future[str]) -> None:
        """Return once the node has answered; raise Excluded where others are ready and it cannot be reached for long.

        It may be measuring all the same: a further attempt fetches what it has.
        """
        gone_since: float | None = None
        try:
            while not (await asyncio.wait({asking}, timeout=min(1.0, GONE_S)))[0]:
                gone = bool(run.lost) and self._barrier.waits_for(run.node.name)
                gone_since = (gone_since or time.monotonic()) if gone else None
                if gone_since is not None and time.monotonic() - gone_since > GONE_S:
                    self._reports.message(run.node.name, "out of reach, left behind")
                    raise Excluded(
                        f"The SSH connection is lost ({run.lost}), and others were ready to go on for {GONE_S:g} s: "
                        "they went on without it."
                    )
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def _read_clock(self, run: RemoteRun, repeat: int, facts: str) -> None:
        """Keep what a node said that is ready."""
        trips = await run.read_clock()
        try:
            environment, (offset_ns, uncertainty_ns) = read_facts(facts), clock_offset(trips)
        except InputError as error:
            raise Excluded(str(error)) from None
        except ValueError:
            raise Excluded("The node's clock could not be read: date +%s%N has to print nanoseconds.") from None
        self._offsets[run.node.name] = offset_ns
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

    async def _measure_alone(self, run: RemoteRun) -> None:
        limit_s = run.node.order.resolved.settings.benchmark_timeout_s
        try:
            async with self._turn:
                await run.measure_alone(limit_s)
        except BaseException as error:
            # It gets no start.
            (run.node.place / READY_FILE).unlink(missing_ok=True)
            if isinstance(error, TimeoutError):
                limit = f"benchmark_timeout_s = {limit_s} s"
                raise Excluded(f"Measuring alone did not end within {limit}.") from None
            raise

    async def _try_out(self, run: RemoteRun) -> None:
        # Each comes here at the same moment, when the barrier opens; the first one begins.
        self._trial_began = self._trial_began or time.monotonic()
        try:
            async with asyncio.timeout(TRIAL_S):
                await run.read_clock(trips=1)
        except (TimeoutError, Lost):
            run.close()

    def _agree(self, run: RemoteRun, repeat: int) -> AgreedStart:
        """Return the start of a repeat: who comes here first agrees on it for all that are ready, who are here too."""
        if repeat not in self._agreed:
            ready = [one.node.name for one in self._runs if self._is_ready(one, repeat)]
            self._agreed[repeat] = agree(
                self.run_dir,
                ready,
                time.monotonic() - self._trial_began,
                # Before anything is measured: what nodes are does not change between their repeats.
                drift_fails=repeat == 1 and self._drift_fails(run),
                attempt=run.node.order.attempt,
                repeat=repeat,
            )
            self._trial_began = 0.0
        return self._agreed[repeat]

    def _is_ready(self, run: RemoteRun, repeat: int) -> bool:
        path = run.node.place / of_repeat(READY_FILE, repeat)
        return self._barrier.has(run.node.name) and path.is_file()

    def _drift_fails(self, run: RemoteRun) -> bool:
        return run.node.order.resolved.settings.benchmark_drift == "fail"

    def _require_no_drift(self, run: RemoteRun) -> None:
        """Raise Excluded for a node that is not like the others, before the turns: those take long."""
        if self._drift_fails(run):
            if self._drift is None:
                self._drift = drift_of_ready(self.run_dir)
            if reported := _drifted(run.node.name, self._drift):
                self._reports.message(run.node.name, "not alike, stopped")
                raise Excluded(reported)

    async def _until_end(self, run: RemoteRun) -> str:
        """Return how the run ended. Raises NodeError where it does not."""
        order = run.node.order
        settings = order.resolved.settings
        # Nodes that wait for each other are past their last start by now; one that does not is at its first.
        limit_s = GRACE_S + (settings.benchmark_timeout_s if order.wait_s else run.node.limit_s + run.node.busy_s)
        try:
            return await run.until_end(limit_s - self._since_start_s(run))
        except TimeoutError:
            pass
        if order.limit_s and not run.lost:
            # The limit on the node has room for the turns of all.
            await run.stop()
            raise NodeError(f"The benchmark hung: it was stopped {limit_s} s after the agreed start.")
        lost = f", and no connection: {run.lost}" if run.lost else ": the node does not stop it."
        raise NodeError(f"No end after {limit_s} s{lost.rstrip('.')}. {run.node.stays}")

    def _since_start_s(self, run: RemoteRun) -> float:
        """Return how long ago the last start was that the node was sent, in seconds; 0 where there was none."""
        start_unix_ns = self._last_start_unix_ns.get(run.node.name)
        return 0 if start_unix_ns is None else max(0.0, (time.time_ns() - start_unix_ns) / 1e9)

    async def _exclude(self, run: RemoteRun, reason: str) -> str:
        """Stop a node's run, fetch what there is, and return why."""
        try:
            stopped = await run.stop()
        except (Lost, TimeoutError) as error:
            return (
                f"{reason} It could not be asked to stop, the SSH connection is lost ({str(error)[-200:]}): it ends by "
                f"itself, at the latest after benchmark_timeout_s. {run.node.stays}"
            )
        except NodeError as error:
            return str(error)
        return f"{reason} {self.stopped}" if stopped else reason

    async def _stop_interrupted(self, run: RemoteRun) -> str:
        try:
            await run.stop_interrupted(self._interruption())
        except Ended:
            return f"{self._interruption()}, and its run is gone from the node."
        except (NodeError, InputError, OSError) as error:
            return str(error) or type(error).__name__
        return ""


def _kept(run: RemoteRun) -> str:
    """Keep where an exception came from whose words do not say it; return the sentence that names the file."""
    path = run.node.place / TRACEBACK
    with suppress(OSError):
        write_atomic(path, traceback.format_exc())
        return f"; where it came from: {path}."
    return ""


def progress_every_s(count: int) -> int:
    """Return how often each of `count` nodes' runs is to say how far it is, in seconds."""
    return min(max(PROGRESS_S[0], math.ceil(PROGRESS_S_PER_NODE * count)), PROGRESS_S[1])


def _drifted(name: str, drift: Iterable[Drift]) -> str:
    """Return what is said of a node that is not like the others; nothing where it is."""
    own = [each for each in drift if any(name in names for names in each.values.values())]
    return f"Drift, and benchmark_drift is fail: {drift_reason(own)} Nothing was measured." if own else ""
