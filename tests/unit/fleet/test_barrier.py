"""Where nodes wait for each other."""

from __future__ import annotations

import asyncio

from benchmark.fleet.barrier import Barrier
from tests.unit.fleet.by_hand import run


def test_a_barrier_opens_when_all_that_have_not_left_are_here() -> None:
    async def passing() -> list[str]:
        barrier, passed = Barrier("abc"), list[str]()

        async def go(name: str) -> None:
            await barrier.wait(name)
            passed.append(name)

        going = [asyncio.ensure_future(go(name)) for name in "ab"]
        await asyncio.sleep(0.01)
        assert passed == []
        assert [barrier.is_here(name) for name in "abc"] == [True, True, False]
        barrier.leave("c")
        barrier.leave("c")
        await asyncio.gather(*going)
        going = [asyncio.ensure_future(go("a"))]
        await asyncio.sleep(0.01)
        going[0].cancel()
        barrier.leave("a")
        await go("b")
        return passed

    assert run(passing()) == ["a", "b", "b"]
