"""Two runs that want the same nodes at once: the one that was opened later gives way.

Each could hold a node that the other waits for, and both would wait until their time is up. So no run keeps nodes while
one of its own waits for an older run's: among those that keep any, only older ones wait for younger ones.
"""

from __future__ import annotations

import asyncio
import re

from benchmark.progress import Progress

# Nodes that wait for the same run do not hear of its end at the same moment.
PATIENCE_S = 5.0
# What a run that waits says of itself: see await_machine.sh and node/machine.py.
_WAITS = re.compile(r"waiting: run (\S+) of ")


class GivingWay:
    """Which nodes of a run wait for an older one."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._waiting: set[str] = set()
        self._changed = asyncio.Event()

    def hear(self, node: str, progress: Progress | None) -> None:
        """Take in what a node's run says of itself; None: nothing more will be heard."""
        match = _WAITS.match(progress.state) if progress else None
        # Ids begin with the time at which a run was opened.
        waits = bool(match and match[1] < self._run_id)
        if waits == (node in self._waiting):
            return
        if waits:
            self._waiting.add(node)
        else:
            self._waiting.discard(node)
        # Wakes a coroutine of each node.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def has_to(self, node: str) -> None:
        """Return once the node is to be given up for a while: another one waits for an older run, and it does not."""
        while True:
            while not self._gives_way(node):
                await self._changed.wait()
            await asyncio.sleep(PATIENCE_S)
            if self._gives_way(node):
                return

    def _gives_way(self, node: str) -> bool:
        return bool(self._waiting) and node not in self._waiting

    async def is_over(self) -> None:
        """Return once no node waits for an older run."""
        while self._waiting:
            await self._changed.wait()
