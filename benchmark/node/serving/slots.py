"""The limit on open connections, and the queue of queries that wait for one."""

from __future__ import annotations

import asyncio
import math
import resource
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar

# File handles and ports left for what else the run opens: logs, samples, telemetry, probes, DNS lookups.
RESERVE = 64
PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Place(Protocol):
    """A server that connections lead to."""

    open: int
    """Connections in use by queries."""

    @property
    def load(self) -> tuple[int, int]:
        """The sort key: the next query goes to the place with the least load."""


P = TypeVar("P", bound=Place)


class Slots(Generic[P]):
    """Connections, divided evenly between the `fit` places, so that idle ones count too; first come, first served.

    A query waits only while no fit place has room. All calls come from one event loop.
    """

    def __init__(self, most: int | None, fit: Callable[[], Sequence[P]], each: int | None = None) -> None:
        """`most`: limit for all places together; `each`: limit for one place; None: no limit."""
        self.most = most
        self._each = each
        self.waited = 0
        """Queries that had to wait."""
        self._fit = fit
        self._waiting: deque[tuple[asyncio.Future[P], Callable[[P], None]]] = deque()

    async def take(self, given: Callable[[P], None]) -> P:
        """Return a place with room for one more; `given` is called with it at once, before the next query's turn."""
        if not self._waiting and (place := self._next()) is not None:
            return self._give(place, given)
        self.waited += 1
        turn: asyncio.Future[P] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, given))
        return await turn

    def release(self, place: P) -> None:
        """Free a connection to the place that `take` returned."""
        place.open -= 1
        while self._waiting:
            if self._waiting[0][0].done():  # cancelled while waiting
                self._waiting.popleft()
                continue
            if (free := self._next()) is None:
                return
            turn, given = self._waiting.popleft()
            turn.set_result(self._give(free, given))

    def _give(self, place: P, given: Callable[[P], None]) -> P:
        place.open += 1
        given(place)
        return place

    def _next(self) -> P | None:
        fit = self._fit()
        limits = [limit for limit in (self._each, self.most and self.most // (len(fit) or 1)) if limit is not None]
        each = max(1, min(limits)) if limits else math.inf
        free = [place for place in fit if place.open < each]
        return min(free, key=lambda place: place.load, default=None)


def raise_handle_limit() -> None:
    """Raise this process's limit on open files, and that of its children, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some kernels allow less than the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int | None:
    """Return how many connections the limit on open files leaves, less a reserve; None: there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    there = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return max(1, soft - there - min(RESERVE, soft // 4))


def most_to_one_server() -> int | None:
    """Return how many connections to one address the local ports allow; None: the system does not say."""
    try:
        first, last = PORTS.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    there = int(last) - int(first) + 1
    return max(1, there - min(RESERVE, there // 4))
