"""What serving runs learn about the measured run: whether it resumes an earlier attempt, and its windows.

Windows are converted from the clock of its node to those of the nodes that served it.
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
    """The measured run, as the serving runs see it: they end after it."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        """Set once it has ended."""
        self._told = asyncio.Event()
        self._adopted = False
        self._windows: tuple[Window, ...] = ()

    def begins(self, adopted: bool) -> None:
        """Tell the others whether an earlier attempt's run was adopted."""
        self._adopted = adopted
        self._told.set()

    def ends(self, place: Path, offset_ns: int) -> None:
        """Tell the others that it has ended, with its result in `place` if there is one; see `windows_in`."""
        if not self.over.is_set():
            self._end(windows_in(place, offset_ns))

    def has_measured(self, windows: str, offset_ns: int) -> None:
        """Tell the others that it has measured, in these windows by its node's clock. Raises ValidationError."""
        self._end(tuple(_moved(one, -offset_ns) for one in _WINDOWS.validate_json(windows)))

    def _end(self, windows: tuple[Window, ...]) -> None:
        self._windows = windows
        self._told.set()
        self.over.set()

    async def adopts(self, run: RemoteRun) -> bool:
        """Return whether an earlier attempt of a serving run is adopted too; otherwise its files are set aside.

        Raises NodeError if that run, and its telemetry, is gone.
        """
        if run.node.order.attempt == 1:
            return False
        await self._told.wait()
        if await run.adopt(keep=self._adopted) or not self._adopted:
            return self._adopted
        raise NodeError("Its telemetry from while it served is gone from the node.")

    async def until_over(self, run: RemoteRun, offset_ns: int) -> str:
        """Return how a serving run ended: by itself, or after the measured run, once it got the windows.

        `offset_ns`: how far its node's clock is ahead of the controller's.
        """
        with suppress(Overtaken):
            return await unless(self.over.wait(), run.until_end(GRACE_S + run.node.limit_s))
        sent = tuple(_moved(one, offset_ns) for one in self._windows)
        await run.put(WINDOWS, _WINDOWS.dump_json(sent).decode())
        return await run.until_end(GRACE_S)


def offset_of(run: RemoteRun, offsets_ns: Mapping[str, int]) -> int:
    """Return how far the clock of a run's node is ahead; of an adopted run, as an earlier attempt measured it."""
    if run.node.name not in offsets_ns:
        for path in sorted(run.node.place.rglob(READY_FILE), reverse=True):
            with suppress(InputError):
                return read_record(path, ReadyNode).offset_ns
    return offsets_ns.get(run.node.name, 0)


def windows_in(place: Path, offset_ns: int) -> tuple[Window, ...]:
    """Return the windows of the result in `place`, by the controller's clock; none if there is no result.

    `offset_ns`: how far the node's clock is ahead of the controller's.
    """
    for path in place.glob(NODE_RESULTS):
        with suppress(InputError):
            result = read_record(path, NodeResult)
            windows = [result.window, *(repeat.window for repeat in result.repeats)]
            return tuple(_moved(one, -offset_ns) for one in windows if one is not None)
    return ()


def _moved(window: Window, by_ns: int) -> Window:
    """Return the window shifted to another clock."""
    return Window.of(max(0, window.started_unix_ns + by_ns), max(0, window.ended_unix_ns + by_ns))
