"""Connections that may be open at once, and who waits for one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from benchmark.node.serving.slots import Slots


@dataclass
class Server:
    """Where connections lead."""

    open: int = 0
    held: list[int] = field(default_factory=list)

    @property
    def load(self) -> tuple[int, int]:
        return self.open, 0


def test_who_waits_is_served_in_turn_and_counted() -> None:
    async def work() -> None:
        server, order = Server(), list[int]()
        slots = Slots(2, lambda: [server])

        async def query(number: int) -> None:
            await slots.take(lambda place: order.append(number))
            await asyncio.sleep(0)
            assert server.open <= 2
            slots.release(server)

        await asyncio.gather(*map(query, range(50)))
        assert order == list(range(50))
        assert (slots.waited, server.open) == (48, 0)

    asyncio.run(work())


def test_without_a_limit_nobody_waits() -> None:
    async def work() -> None:
        server = Server()
        slots = Slots(None, lambda: [server])
        for _ in range(1000):
            await slots.take(lambda place: None)
        assert (slots.waited, server.open) == (0, 1000)

    asyncio.run(work())


def test_several_servers_share_the_connections() -> None:
    async def work() -> None:
        servers = [Server(), Server()]
        fit = [*servers]
        slots = Slots(4, lambda: fit)
        for _ in range(4):
            await slots.take(lambda place: None)
        assert [server.open for server in servers] == [2, 2]
        waiting = [asyncio.ensure_future(slots.take(lambda place: None)) for _ in range(3)]
        await asyncio.sleep(0)
        assert slots.waited == 3
        slots.release(servers[1])
        assert await waiting[0] is servers[1]
        # One that cannot be reached any more leaves its share to the other.
        fit.remove(servers[0])
        slots.release(servers[0])
        assert [await one for one in waiting[1:]] == [servers[1]] * 2
        assert [server.open for server in servers] == [1, 4]

    asyncio.run(work())


def test_who_gave_up_waiting_is_passed_over() -> None:
    async def work() -> None:
        server = Server()
        slots = Slots(1, lambda: [server])
        await slots.take(lambda place: None)
        first, second = (asyncio.ensure_future(slots.take(lambda place: None)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        slots.release(server)
        assert await second is server
        assert server.open == 1

    asyncio.run(work())


def test_one_place_may_have_fewer_than_its_share() -> None:
    async def work() -> None:
        servers = [Server(), Server()]
        slots = Slots(None, lambda: servers, each=3)
        for _ in range(6):
            await slots.take(lambda place: None)
        assert [server.open for server in servers] == [3, 3]
        waiting = asyncio.ensure_future(slots.take(lambda place: None))
        await asyncio.sleep(0)
        assert not waiting.done()
        slots.release(servers[0])
        assert await waiting is servers[0]

    asyncio.run(work())
