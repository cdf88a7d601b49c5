"""All nodes as one system: each serves, and one driver measures them all under one schedule.

A driver and its servers are runs like others, a coroutine each, which wait for each other at the barrier: all ports are
held; the driver has tried them; all serve; the driver is ready, and the measurement begins. When it has ended, each
server is sent the windows in which the driver measured, and reports what it used in them.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmark.cluster.drift import drift_reason
from benchmark.cluster.names import natural, some
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.fleet import windows
from benchmark.fleet.errors import Ended, Excluded, NodeError
from benchmark.fleet.measure import Measurement
from benchmark.fleet.remote_run import RemoteRun
from benchmark.fleet.rendezvous import READY_FILE
from benchmark.fleet.session import ANSWER_S
from benchmark.records import DRIVER, AgreedStart, ReadyNode, Server, Window
from benchmark.records.system import TRIES_AT_ONCE, TRY_S
from benchmark.rundir import LISTENS, LOAD, SERVES, SERVING, TRIED, TRY
from benchmark.words import plural

_REASONS = TypeAdapter(dict[str, str])


class SystemMeasurement(Measurement):
    """The runs of a system: one node's order has it drive, the others serve. `needed`: so many have to."""

    stopped = "It was stopped."

    def __init__(self, *arguments: Any, needed: int, where: str, **more: Any) -> None:
        """`where`: in words, where the driver is."""
        super().__init__(*arguments, **more)
        self._needed, self._where = needed, where
        # Those too that failed before: they are part of the system that was asked for.
        self._servers = {place.node for run in self._runs for place in run.node.order.drives}
        self._adopted: asyncio.Future[bool] | None = None
        self._unreached: dict[str, str] = {}
        self._serving: dict[str, Server] = {}
        self._serving_since_ns = 0
        self._windows: tuple[Window, ...] = ()
        self._over = asyncio.Event()

    async def _one(self, run: RemoteRun) -> None:
        try:
            await super()._one(run)
        finally:
            if run.node.order.drives:
                self._windows = windows.windows_in(run.node.place, self._offset_of(run))
                self._over.set()
                if not self._adoption.done():
                    self._adoption.set_result(False)

    @property
    def _adoption(self) -> asyncio.Future[bool]:
        """Whether the driver's run of an earlier attempt is taken over."""
        if self._adopted is None:
            self._adopted = asyncio.get_running_loop().create_future()
        return self._adopted

    async def _measure(self, run: RemoteRun) -> None:
        await (self._drive(run) if run.node.order.drives else self._serve(run))

    async def _drive(self, run: RemoteRun) -> None:
        order, name = run.node.order, run.node.name
        try:
            self._adoption.set_result(adopted := order.attempt > 1 and await run.adopt())
            if not adopted:
                await run.start()
                await self._barrier.wait(name)
                await self._require_enough()
                await run.put(TRY, "1")
                within_s = ANSWER_S + TRY_S * len(self._servers) / TRIES_AT_ONCE
                self._unreached = _REASONS.validate_json(await run.until_there(TRIED, f"{TRIED}.lock", within_s))
                await self._barrier.wait(name)
                await self._require_enough()
                await self._barrier.wait(name)
                await self._require_enough()
                self._serving_since_ns = time.time_ns()
                servers = [self._serving[one] for one in sorted(self._serving, key=natural) if self._barrier.has(one)]
                await run.put(SERVING, json.dumps([server.model_dump() for server in servers]))
                for repeat in range(1, order.measurements + 1):
                    if not await self._measure_together(run, repeat):
                        break
            self._barrier.leave(name)
            state = await self._until_end(run)
        except Ended as ended:
            state = ended.state
        self._barrier.leave(name)
        await run.finish(state)

    async def _serve(self, run: RemoteRun) -> None:
        name = run.node.name
        try:
            if not await self._begin_to_serve(run):
                await run.start()
                await self._until_listening(run)
                await self._barrier.wait(name)
                await self._barrier.wait(name)
                self._require_reached(run)
                await self._require_enough()
                await run.put(LOAD, "1")
                await self._until_ready(run, 1)
                self._serving[name] = await self._server(run)
                await self._barrier.wait(name)
                await self._require_enough()
                await self._measure_together(run, 1)
            # It begins once, and ends when the driver has.
            self._barrier.leave(name)
            state = await windows.until_over(
                run, self._over, lambda: windows.words(self._windows, self._offset_of(run))
            )
        except Ended as ended:
            state = ended.state
        self._barrier.leave(name)
        await run.finish(state)
        await self._over.wait()
        if failed := self.outcome.failures.get(DRIVER):
            raise NodeError(f"It served, and the driver ({self._where}) failed: {failed}")

    async def _begin_to_serve(self, run: RemoteRun) -> bool:
        """Return whether it serves already, for the driver's run of an earlier attempt, which goes on or has ended."""
        if run.node.order.attempt == 1:
            return False
        adopted = await self._adoption
        if await run.adopt(keep=adopted) or not adopted:
            return adopted
        raise NodeError("What it watched while it served is gone from the node.")

    async def _until_listening(self, run: RemoteRun) -> None:
        limit_s = run.node.order.resolved.settings.benchmark_sync_timeout_s
        try:
            await run.until_there(LISTENS, f"{LISTENS}.lock", limit_s)
        except TimeoutError:
            raise Excluded(
                f"Not ready to listen within benchmark_sync_timeout_s = {limit_s} s: it was still {run.doing}."
            ) from None

    async def _server(self, run: RemoteRun) -> Server:
        """Return what a node that serves says of its server."""
        place = run.node.order.serves
        with suppress(ValidationError):
            server = Server.model_validate_json(await run.until_there(SERVES, "starting.lock", ANSWER_S))
            if place and (server.node, server.url) == (place.node, place.url):
                return server
        raise Excluded("What the node says of its server cannot be used.")

    def _require_reached(self, run: RemoteRun) -> None:
        if (why := self._unreached.get(run.node.name)) and (place := run.node.order.serves):
            raise Excluded(
                f"The driver ({self._where}) cannot reach {place.host} port {place.port}: {why}. Nothing was loaded: "
                "open that port between the two, or set benchmark_serve_address and benchmark_serve_port."
            )

    async def _require_enough(self) -> None:
        """Raise Excluded where the driver is gone, or fewer servers are left than the run is to count with."""
        if not self._barrier.has(DRIVER):
            await self._over.wait()
            failed = self.outcome.failures.get(DRIVER, "it ended")
            raise Excluded(f"Nothing was measured: the driver ({self._where}) failed: {failed}")
        left = {name for name in self._servers if self._barrier.has(name) and name not in self._unreached}
        if len(left) < self._needed:
            missing = some(sorted(self._servers - left, key=natural))
            raise Excluded(
                f"Nothing was measured: without {missing} too few serve, since benchmark_min_nodes asks for "
                f"{self._needed} of {plural(len(self._servers), 'node')}."
            )

    def _waits_since(self, run: RemoteRun, repeat: int) -> tuple[str, int]:
        if repeat == 1 and run.node.order.drives:
            return "benchmark_sync_timeout_s", self._serving_since_ns
        if run.node.name in self._serving:
            return "benchmark_sync_timeout_s", time.time_ns()
        return super()._waits_since(run, repeat)

    def _agree(self, run: RemoteRun, repeat: int) -> AgreedStart:
        start = super()._agree(run, repeat)
        if start.drift and run.node.name in start.nodes:
            raise Excluded(
                "Nothing was measured: the nodes are one system and differ, and benchmark_drift is fail: "
                f"{drift_reason(start.drift)}"
            )
        return start

    def _offset_of(self, run: RemoteRun) -> int:
        """Return by how much the node's clock is ahead; of a run that was taken over, as it was found out then."""
        if run.node.name not in self._offsets:
            for path in sorted(run.node.place.rglob(READY_FILE), reverse=True):
                with suppress(InputError):
                    return read_record(path, ReadyNode).offset_ns
        return self._offsets.get(run.node.name, 0)
