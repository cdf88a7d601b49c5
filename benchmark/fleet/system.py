"""All nodes as one system: each serves, and one driver measures them all under one schedule.

The driver and its servers have ordinary runs, with a coroutine each, and wait for each other at the barrier: all ports
are held; the driver has tried them; all serve; the driver is ready, and the measurement begins. After it, each server
receives the windows in which the driver measured, and reports what it used in them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from benchmark.cluster.drift import drift_reason
from benchmark.cluster.names import natural, some
from benchmark.cluster.one_system import CONTROLLER
from benchmark.fleet.barrier import Overtaken, unless
from benchmark.fleet.errors import Ended, Excluded, NodeError
from benchmark.fleet.lead import Lead, offset_of
from benchmark.fleet.measure import Measurement
from benchmark.fleet.remote_run import GRACE_S, RemoteRun
from benchmark.fleet.rendezvous import read_unreached
from benchmark.fleet.session import ANSWER_S
from benchmark.records import DRIVER, AgreedStart, Server
from benchmark.records.system import TRIES_AT_ONCE, TRY_S
from benchmark.rundir import LISTENS, LOAD, SERVES, SERVING, TRIED, TRY
from benchmark.words import plural


class SystemMeasurement(Measurement):
    """The runs of a system: one is the driver, the others serve. `needed`: how many must serve."""

    stopped = "It was stopped."

    def __init__(self, *arguments: Any, needed: int, where: str, **more: Any) -> None:
        """`where`: in words, where the driver is."""
        super().__init__(*arguments, **more)
        self._needed, self._where = needed, where
        # Including those that failed before: they are part of the requested system.
        self._servers = {place.node for run in self._runs for place in run.node.order.drives}
        self._lead = Lead()
        self._unreached: dict[str, str] = {}
        self._serving: dict[str, Server] = {}
        self._serving_since_ns = 0
        self._short = asyncio.Event()
        self._few = ""
        """Why too few serve, as first seen: nodes that end for that reason would be missing later."""

    async def _one(self, run: RemoteRun) -> None:
        try:
            await super()._one(run)
        finally:
            if run.node.order.drives:
                self._lead.ends(run.node.place, offset_of(run, self._starts.offsets_ns))
            else:
                self._see_who_is_left()

    async def _measure(self, run: RemoteRun) -> None:
        self._require_what_was_left(run)
        await (self._drive(run) if run.node.order.drives else self._serve(run))

    async def _drive(self, run: RemoteRun) -> None:
        order, name = run.node.order, run.node.name
        try:
            self._lead.begins(adopted := await self._adopts(run))
            if not adopted:
                await run.start()
                await self._barrier.wait(name)
                await self._require_enough()
                await run.put(TRY, "1")
                within_s = ANSWER_S + TRY_S * len(self._servers) / TRIES_AT_ONCE
                self._unreached = read_unreached(await run.until_there(TRIED, f"{TRIED}.lock", within_s))
                await self._barrier.wait(name)
                await self._require_enough()
                await self._barrier.wait(name)
                await self._require_enough()
                self._serving_since_ns = time.time_ns()
                servers = [self._serving[one] for one in sorted(self._serving, key=natural) if self._barrier.has(one)]
                await run.put(SERVING, json.dumps([server.model_dump() for server in servers]))
                await self._begin(run)
                for repeat in range(2, order.measurements + 1):
                    await self._measure_together(run, repeat)
            self._barrier.leave(name)
            state = await self._until_end(run)
        except Ended as ended:
            state = ended.state
        self._barrier.leave(name)
        await run.finish(state)

    async def _serve(self, run: RemoteRun) -> None:
        name = run.node.name
        try:
            if not await self._lead.adopts(run):
                await run.start()
                await self._until_listening(run)
                await self._barrier.wait(name)
                await self._barrier.wait(name)
                self._require_reached(run)
                await self._require_enough()
                await run.put(LOAD, "1")
                await self._until_ready(run, 1)
                self._serving[name] = await self._server(run)
                await self._while_it_serves(run)
                await self._require_enough()
                await self._begin(run)
            # It measures once, and ends after the driver.
            self._barrier.leave(name)
            state = await self._lead.until_over(run, offset_of(run, self._starts.offsets_ns))
        except Ended as ended:
            state = ended.state
        self._barrier.leave(name)
        await run.finish(state)
        await self._lead.over.wait()
        if DRIVER in self.outcome.failures:
            raise NodeError(f"It served, and {self._driver_failed}")

    async def _begin(self, run: RemoteRun) -> None:
        """Begin the first measurement. Raises Excluded once too few serve, since a driver may first search for long."""
        try:
            await unless(self._short.wait(), self._measure_together(run, 1))
        except Overtaken:
            raise Excluded(self._few) from None

    async def _ready_with_all(self, run: RemoteRun, repeat: int) -> str | None:
        if run.node.order.drives:
            return await super()._ready_with_all(run, repeat)
        facts = await self._until_ready(run, repeat)
        self._giving_way.hear(run.node.name, None)
        await self._while_it_serves(run)
        return facts

    async def _while_it_serves(self, run: RemoteRun) -> None:
        """Wait for the others: they may load, or the driver search, for long. Raises Ended if its run ends first."""
        ending = run.until_end(GRACE_S + run.node.limit_s)
        with suppress(Overtaken):
            raise Ended(await unless(self._barrier.wait(run.node.name), ending))

    async def _until_listening(self, run: RemoteRun) -> None:
        limit_s = run.node.order.resolved.settings.benchmark_sync_timeout_s
        try:
            await self._reach.answer(run, run.until_there(LISTENS, f"{LISTENS}.lock", limit_s))
        except TimeoutError:
            raise Excluded(
                f"Not ready to listen within benchmark_sync_timeout_s = {limit_s} s: it was still {run.doing}."
            ) from None

    async def _server(self, run: RemoteRun) -> Server:
        """Return a serving node's report on its server."""
        place = run.node.order.serves
        with suppress(ValidationError):
            server = Server.model_validate_json(await run.until_there(SERVES, "starting.lock", ANSWER_S))
            if place and (server.node, server.url) == (place.node, place.url):
                return server
        raise Excluded("The node's report on its server is invalid.")

    def _require_reached(self, run: RemoteRun) -> None:
        if (why := self._unreached.get(run.node.name)) and (place := run.node.order.serves):
            raise Excluded(
                f"The driver ({self._where}) cannot reach {place.host} port {place.port}: {why}. Nothing was loaded: "
                "open that port between the two, or set benchmark_serve_address and benchmark_serve_port."
            )

    def _require_what_was_left(self, run: RemoteRun) -> None:
        """Raise NodeError, before anything is started, if the driver's node or too many others failed before."""
        there = {one.node.name for one in self._runs}
        if self._where not in (CONTROLLER, *there):
            raise NodeError(f"Nothing was measured: the driver's node, {self._where}, failed before.")
        # An earlier attempt's results may only need to be fetched.
        if run.node.order.attempt == 1 and (why := self._too_few(there)):
            raise NodeError(why)

    def _too_few(self, there: Collection[str]) -> str:
        """Return a sentence if fewer servers are left than the run needs; else an empty text."""
        left = self._servers.intersection(there)
        if len(left) >= self._needed:
            return ""
        missing = some(sorted(self._servers - left, key=natural))
        return (
            f"Nothing was measured: without {missing} too few nodes serve; benchmark_min_nodes requires {self._needed} "
            f"of {plural(len(self._servers), 'node')}."
        )

    def _see_who_is_left(self) -> None:
        left = {name for name in self._servers if self._barrier.has(name) and name not in self._unreached}
        self._few = self._few or self._too_few(left)
        if self._few:
            self._short.set()

    async def _require_enough(self) -> None:
        """Raise Excluded if fewer servers are left than the run needs, or the driver is gone."""
        self._see_who_is_left()
        # Checked first, since the driver ends for this reason too.
        if self._few:
            raise Excluded(self._few)
        if not self._barrier.has(DRIVER):
            await self._lead.over.wait()
            raise Excluded(f"Nothing was measured: {self._driver_failed}")

    @property
    def _driver_failed(self) -> str:
        failed = self.outcome.failures.get(DRIVER, "it ended").removesuffix(f" {self.stopped}")
        return f"the driver ({self._where}) failed: {failed}"

    def _waits_since(self, run: RemoteRun, repeat: int) -> tuple[str, int]:
        if repeat == 1 and run.node.order.drives:
            return "benchmark_sync_timeout_s", self._serving_since_ns
        if run.node.name in self._serving:
            return "benchmark_sync_timeout_s", time.time_ns()
        return super()._waits_since(run, repeat)

    def _spared(self, run: RemoteRun) -> bool:
        there = {one.node.name for one in self._runs if self._barrier.has(one.node.name) and not one.lost}
        return DRIVER in there and not self._too_few(there.difference(self._unreached))

    def _agree(self, run: RemoteRun, repeat: int) -> AgreedStart:
        start = super()._agree(run, repeat)
        if start.drift:
            raise Excluded(
                "Nothing was measured: the nodes are one system and differ, and benchmark_drift is fail: "
                f"{drift_reason(start.drift)}"
            )
        return start
