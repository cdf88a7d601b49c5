"""What runs that serve hear of the one that is measured: whether it goes on from an earlier attempt, and its windows.

These are carried from its node's clock to those of the nodes that served it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.fleet.barrier import Overtaken, unless
from benchmark.fleet.errors import NodeError
from benchmark.fleet.remote_run import GRACE_S, RemoteRun
from benchmark.fleet.rendezvous import READY_FILE
from benchmark.records import NodeResult, ReadyNode, Window
from benchmark.rundir import NODE_RESULTS, WINDOWS

_WINDOWS = TypeAdapter(tuple[Window, ...])


class Lead:
    """What the others hear of it. They end when it has."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        """Set once it has ended."""
        self._told = asyncio.Event()
        self._adopted = False
        self._windows: tuple[Window, ...] = ()

    def begins(self, adopted: bool) -> None:
        """Tell the others whether what an earlier attempt left of it was taken over."""
        self._adopted = adopted
        self._told.set()

    def ends(self, place: Path, offset_ns: int) -> None:
        """Tell them that it has ended, with its result in `place`, if there is one; see `windows_in`."""
        if not self.over.is_set():
            self._end(windows_in(place, offset_ns))

    def has_measured(self, windows: str, offset_ns: int) -> None:
        """Tell them that it has, in these windows by its node's clock, and only ends. Raises ValidationError."""
        self._end(tuple(_moved(one, -offset_ns) for one in _WINDOWS.validate_json(windows)))

    def _end(self, windows: tuple[Window, ...]) -> None:
        self._windows = windows
        self._told.set()
        self.over.set()

    async def adopts(self, run: RemoteRun) -> bool:
        """Return whether what an earlier attempt left of a run that serves is taken over too; else it is put aside.

        Raises NodeError where it is gone, and what it had watched with it.
        """
        if run.node.order.attempt == 1:
            return False
        await self._told.wait()
        if await run.adopt(keep=self._adopted) or not self._adopted:
            return self._adopted
        raise NodeError("What it watched while it served is gone from the node.")

    async def until_over(self, run: RemoteRun, offset_ns: int) -> str:
        """Return how a run that serves ended: by itself, or once all was over and it was sent the windows.

        `offset_ns`: by how much its node's clock is ahead of the controller's.
        """
        with suppress(Overtaken):
            return await unless(self.over.wait(), run.until_end(GRACE_S + run.node.limit_s))
        sent = tuple(_moved(one, offset_ns) for one in self._windows)
        await run.put(WINDOWS, _WINDOWS.dump_json(sent).decode())
        return await run.until_end(GRACE_S)


def offset_of(run: RemoteRun, offsets_ns: Mapping[str, int]) -> int:
    """Return by how much a run's node is ahead: of one that was taken over, as the earlier attempt had found out."""
    if run.node.name not in offsets_ns:
        for path in sorted(run.node.place.rglob(READY_FILE), reverse=True):
            with suppress(InputError):
                return read_record(path, ReadyNode).offset_ns
    return offsets_ns.get(run.node.name, 0)


def windows_in(place: Path, offset_ns: int) -> tuple[Window, ...]:
    """Return the windows of the result in `place`, by the controller's clock; none where there is no result.

    `offset_ns`: by how much the node's clock is ahead of the controller's.
    """
    for path in place.glob(NODE_RESULTS):
        with suppress(InputError):
            result = read_record(path, NodeResult)
            windows = [result.window, *(repeat.window for repeat in result.repeats)]
            return tuple(_moved(one, -offset_ns) for one in windows if one is not None)
    return ()


def _moved(window: Window, by_ns: int) -> Window:
    """Return a window by another clock."""
    return Window.of(max(0, window.started_unix_ns + by_ns), max(0, window.ended_unix_ns + by_ns))
