"""Nodes of which several serve one copy of a model: a head, which is measured like any node, and others beside it.

Each is a run like others. Before anything is loaded the nodes of a group have to reach each other and to have alike
software; then they load together, and begin with all others at the agreed start. When the head has ended, the others
are sent the windows in which it was measured, and report what they used in them. What ends one of them ends them all:
the servers of the others too, so that the node whose server ended first is the one that failed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmark.cluster.names import some
from benchmark.fleet.barrier import Barrier, Overtaken, unless
from benchmark.fleet.errors import Ended, Excluded, NodeError
from benchmark.fleet.lead import Lead, offset_of
from benchmark.fleet.measure import Measurement
from benchmark.fleet.remote_run import RemoteRun
from benchmark.fleet.rendezvous import read_unreached
from benchmark.fleet.session import ANSWER_S
from benchmark.records import GroupMember, GroupPart, ServerPlace
from benchmark.records.system import TRY_S
from benchmark.rundir import LISTENS, LOAD, MEASURED, SERVER_ENDED, TRIED, TRY

_PLACES = TypeAdapter(tuple[ServerPlace, ...])
# Characters of a version, or of a checksum, that are shown.
_SHORT = 20
# Seconds in which nodes whose servers end for the same cause report it: a server has ten to end, then its run ends.
_SETTLE_S = 20.0


@dataclass
class _Group:
    """The nodes of one group, and how far they are."""

    barrier: Barrier
    nodes: int
    members: dict[str, GroupMember] = field(default_factory=dict)
    failed: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of nodes that failed: when their servers ended, and why they failed."""
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    culprit: str = ""
    reason: str = ""
    """The node that failed first, and why."""
    lead: Lead = field(default_factory=Lead)
    """The head's run."""

    def fail(self, node: str, reason: str) -> None:
        """Have all others end too, unless they were told so before."""
        if not self.broken.is_set():
            self.culprit, self.reason = node, reason
            self.broken.set()

    async def failed_first(self, node: str, reason: str, ended_ns: int) -> bool:
        """Return whether this node failed first, of all whose servers end soon after; the others end with that.

        `ended_ns`: when its server ended; 0: it had none yet, or what would have noted it was killed too.
        """
        self.failed[node] = ended_ns, reason
        if ended_ns and len(self.failed) < self.nodes:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.broken.wait(), _SETTLE_S)
        first = min(self.failed, key=lambda name: self.failed[name][0])
        self.fail(first, self.failed[first][1])
        return self.culprit == node

    def excluded(self, part: GroupPart) -> Excluded:
        """Return why a node ends since another has failed."""
        which = "the head" if self.culprit == part.head.node else "another node"
        return Excluded(f"{self.culprit}, {which} of its group {part.name}, failed: {self.reason}")

    async def all_here(self, node: str, part: GroupPart) -> None:
        """Return once all nodes have come. Raises Excluded where one has gone."""
        await self.barrier.wait(node)
        if not all(self.barrier.has(place.node) for place in part.places):
            # Why, is known in a moment.
            await self.broken.wait()
            raise self.excluded(part)

    def unlike(self, node: str, head: str) -> str:
        """Return in words in what a node's software differs from the head's; nothing where it does not."""
        own, wanted = self.members[node].software, self.members[head].software
        return "; ".join(
            f"{name} {own.get(name, 'none')[:_SHORT]} here and {wanted.get(name, 'none')[:_SHORT]} there"
            for name in sorted(own.keys() | wanted.keys())
            if own.get(name) != wanted.get(name)
        )


class GroupedMeasurement(Measurement):
    """The runs of all nodes, of which some are in groups."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        names: dict[str, list[str]] = {}
        for run in self._runs:
            if part := run.node.order.group:
                names.setdefault(part.name, []).append(run.node.name)
        self._groups = {name: _Group(Barrier(nodes), len(nodes)) for name, nodes in names.items()}

    async def _one(self, run: RemoteRun) -> None:
        try:
            await super()._one(run)
        finally:
            if (part := run.node.order.group) and (failed := self.outcome.failures.get(run.node.name)):
                self._groups[part.name].fail(run.node.name, failed)

    async def _measure(self, run: RemoteRun) -> None:
        name, part = run.node.name, run.node.order.group
        if part is None:
            await super()._measure(run)
            return
        there = {one.node.name for one in self._runs}
        if missing := [place.node for place in part.places if place.node not in there]:
            raise NodeError(f"Nothing was measured: {some(missing)} of its group, {part.name}, failed before.")
        group = self._groups[part.name]
        try:
            work = super()._measure(run) if part.leads else self._compute(run, part, group)
            await unless(group.broken.wait(), work)
        except Overtaken:
            raise group.excluded(part) from None
        except NodeError as error:
            ended_ns = _server_ended_ns(run.node.place, offset_of(run, self._starts.offsets_ns))
            if not await group.failed_first(name, str(error), ended_ns):
                raise group.excluded(part) from None
            raise
        finally:
            group.barrier.leave(name)
            if part.leads:
                group.lead.ends(run.node.place, offset_of(run, self._starts.offsets_ns))

    async def _adopts(self, run: RemoteRun) -> bool:
        adopted = await super()._adopts(run)
        if part := run.node.order.group:
            self._groups[part.name].lead.begins(adopted)
        return adopted

    async def _started(self, run: RemoteRun) -> None:
        if part := run.node.order.group:
            await self._meet(run, part, self._groups[part.name])

    async def _until_all_ready(self, run: RemoteRun) -> str | None:
        if run.node.order.group is None:
            return await super()._until_all_ready(run)
        # A node of a group that gave way and began anew would have to find the others again, which have loaded by now.
        return await self._ready_with_all(run, 1)

    async def _until_end(self, run: RemoteRun) -> str:
        if (part := run.node.order.group) and part.leads:
            limit_s = run.node.order.resolved.settings.benchmark_timeout_s - self._since_start_s(run)
            # Before it ends its server: those of the others may end with that.
            with suppress(TimeoutError, ValidationError):
                windows = await run.until_there(MEASURED, f"{MEASURED}.lock", limit_s)
                self._groups[part.name].lead.has_measured(windows, offset_of(run, self._starts.offsets_ns))
        return await super()._until_end(run)

    def _spared(self, run: RemoteRun) -> bool:
        # A group ends with each of its nodes, so that those of one with a lost node can go on in no way.
        broken = {part.name for one in self._runs if one.lost and (part := one.node.order.group)}
        whole = (one for one in self._runs if one.node.order.group is None or one.node.order.group.name not in broken)
        return any(self._reach.waits(one) for one in whole)

    async def _compute(self, run: RemoteRun, part: GroupPart, group: _Group) -> None:
        """From the start of the run of a node that is not the head to its fetched files."""
        name = run.node.name
        try:
            if not await group.lead.adopts(run):
                await run.start()
                await self._meet(run, part, group)
                await self._measure_together(run, 1)
            # It begins once, and ends when the head has.
            self._barrier.leave(name)
            state = await group.lead.until_over(run, offset_of(run, self._starts.offsets_ns))
        except Ended as ended:
            state = ended.state
        self._barrier.leave(name)
        await run.finish(state)

    async def _meet(self, run: RemoteRun, part: GroupPart, group: _Group) -> None:
        """Let the node load once all of its group listen, are alike and reach each other. Raises Excluded."""
        name, limit_s = run.node.name, run.node.order.resolved.settings.benchmark_sync_timeout_s
        try:
            group.members[name] = GroupMember.model_validate_json(
                await self._reach.answer(run, run.until_there(LISTENS, f"{LISTENS}.lock", limit_s))
            )
        except ValidationError:
            raise Excluded("What the node says of itself cannot be used.") from None
        except TimeoutError:
            raise Excluded(
                f"Not ready to listen within benchmark_sync_timeout_s = {limit_s} s: it was still {run.doing}."
            ) from None
        with self._reach.waiting(name):
            await group.all_here(name, part)
        if unlike := group.unlike(name, part.head.node):
            raise Excluded(
                f"Its software is not that of {part.head.node}, the head of its group {part.name}: {unlike}. Nothing "
                "was loaded: provide the same on both with playbooks/provision.yml."
            )
        places = [place for place in part.places if place.node != name]
        beside = [place.model_copy(update={"port": group.members[place.node].port}) for place in places]
        await run.put(TRY, _PLACES.dump_json((*places, *beside)).decode())
        within_s = ANSWER_S + 2 * TRY_S * len(places)
        unreached = read_unreached(await run.until_there(TRIED, f"{TRIED}.lock", within_s))
        if unreached:
            found = " and ".join(f"{other} at {_host(part, other)} ({why})" for other, why in unreached.items())
            raise Excluded(
                f"It cannot reach {found}, of its group {part.name}. Nothing was loaded: let the nodes of a group "
                "connect to each other at any port, or set benchmark_serve_address to addresses at which they can."
            )
        with self._reach.waiting(name):
            await group.all_here(name, part)
        await run.put(LOAD, "1")


def _server_ended_ns(place: Path, offset_ns: int) -> int:
    """Return when a node's server ended, by the controller's clock, from the node's files; 0: nothing says."""
    try:
        return int((place / SERVER_ENDED).read_text(encoding="utf-8")) - offset_ns
    except (OSError, ValueError):
        return 0


def _host(part: GroupPart, node: str) -> str:
    return next((place.host for place in part.places if place.node == node), node)
