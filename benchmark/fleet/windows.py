"""The windows in which a run measured, carried from its node's clock to those of the nodes that served it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.fleet.remote_run import GRACE_S, RemoteRun
from benchmark.records import NodeResult, Window
from benchmark.rundir import WINDOWS

_WINDOWS = TypeAdapter(tuple[Window, ...])


def windows_in(place: Path, offset_ns: int) -> tuple[Window, ...]:
    """Return the windows of the result in `place`, by the controller's clock; none where there is no result.

    `offset_ns`: by how much the node's clock is ahead of the controller's.
    """
    for path in place.glob("mlperf_datacenter_*.json"):
        with suppress(InputError):
            result = read_record(path, NodeResult)
            windows = [result.window, *(repeat.window for repeat in result.repeats)]
            return tuple(_moved(one, -offset_ns) for one in windows if one is not None)
    return ()


def words(windows: tuple[Window, ...], offset_ns: int) -> str:
    """Return what a node is sent: the windows by its own clock, which is so far ahead."""
    return _WINDOWS.dump_json(tuple(_moved(one, offset_ns) for one in windows)).decode()


async def until_over(run: RemoteRun, over: asyncio.Event, sent: Callable[[], str]) -> str:
    """Return how a run ended that measures nothing itself: on its own, or once all is over and it was sent `sent()`."""
    ending = asyncio.ensure_future(run.until_end(GRACE_S + run.node.limit_s))
    waiting = asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait({ending, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            return ending.result()
    finally:
        for one in (ending, waiting):
            one.cancel()
        await asyncio.gather(ending, waiting, return_exceptions=True)
    await run.put(WINDOWS, sent())
    return await run.until_end(GRACE_S)


def _moved(window: Window, by_ns: int) -> Window:
    """Return a window by another clock."""
    return Window.of(max(0, window.started_unix_ns + by_ns), max(0, window.ended_unix_ns + by_ns))
