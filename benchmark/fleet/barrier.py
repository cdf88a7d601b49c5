"""A barrier at which nodes wait for each other, and a way to cancel work when something else happens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class Overtaken(Exception):
    """The awaited result will not come."""


async def unless(other: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T:
    """Do the work and return its result. As soon as the other is done, cancel the work and raise Overtaken."""
    working, overtaking = asyncio.ensure_future(work), asyncio.ensure_future(other)
    try:
        await asyncio.wait({working, overtaking}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
    finally:
        for waiting in (working, overtaking):
            waiting.cancel()
        await asyncio.gather(working, overtaking, return_exceptions=True)
    raise Overtaken


class Barrier:
    """Lets members pass only once all that have not left are waiting."""

    def __init__(self, members: Iterable[str]) -> None:
        self._members = set(members)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def wait(self, member: str) -> None:
        """Return once all members are here."""
        passed = self._waiting[member] = asyncio.get_running_loop().create_future()
        self._open_where_all_are_here()
        try:
            await passed
        finally:
            # An interrupted member no longer waits.
            if self._waiting.get(member) is passed:
                del self._waiting[member]

    def leave(self, member: str) -> None:
        """Remove a member; may be called again."""
        self._members.discard(member)
        self._waiting.pop(member, None)
        self._open_where_all_are_here()

    def has(self, member: str) -> bool:
        """Return whether this is still a member."""
        return member in self._members

    def is_here(self, member: str) -> bool:
        """Return whether a member waits for the others."""
        return member in self._waiting

    def _open_where_all_are_here(self) -> None:
        if self._members <= self._waiting.keys():
            waiting, self._waiting = self._waiting, {}
            for passed in waiting.values():
                if not passed.done():
                    passed.set_result(None)
