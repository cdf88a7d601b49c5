"""Where a further attempt at a sweep resumes: at the first step that any of its nodes lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.files import write_record
from benchmark.fleet.barrier import Barrier
from benchmark.fleet.node import Node
from benchmark.rundir import ORDER, read_run

if TYPE_CHECKING:
    from benchmark.cluster.sweep import StepsLeft


class NextStep:
    """The step that all starting nodes agree on, once the files of earlier attempts were fetched from each."""

    def __init__(self, run_dir: Path, barrier: Barrier) -> None:
        self._run_dir, self._barrier = run_dir, barrier
        self._starting: list[str] = []
        self._agreeing: asyncio.Future[StepsLeft] | None = None

    async def agree(self, node: Node) -> Node:
        """Wait for the other starting nodes; return the node with its new order, which is also written to its file."""
        left = await (self._of_all(node.name) if node.order.wait_s is not None else self._of([node.name]))
        changes = {
            "first_step": left.first_step,
            "measurements": node.order.resolved.measurements - left.first_step + 1,
            "burst_qps": left.bursts_qps.get(node.name),
        }
        order = node.order.model_copy(update=changes)
        write_record(node.place / ORDER, order)
        return replace(node, order=order)

    async def _of_all(self, name: str) -> StepsLeft:
        self._starting.append(name)
        await self._barrier.wait(name)
        self._agreeing = self._agreeing or asyncio.ensure_future(self._of(self._starting))
        return await asyncio.shield(self._agreeing)

    async def _of(self, nodes: Collection[str]) -> StepsLeft:
        # Imported here, since it needs numpy, which no other run does.
        from benchmark.cluster.sweep import steps_left

        # In a thread: it reads all samples, while the loop serves other nodes.
        return await asyncio.to_thread(steps_left, self._run_dir, read_run(self._run_dir), nodes)
