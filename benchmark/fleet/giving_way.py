"""When two runs want the same nodes at the same time, the run that was opened later gives way.

Otherwise each could hold a node that the other waits for, until both time out. So a run holds no nodes while one of its
nodes waits for an older run: among runs that hold nodes, only older ones wait for younger ones.
"""

from __future__ import annotations

import asyncio
import re

from benchmark.progress import Progress

# Nodes that wait for the same run do not learn of its end at the same moment.
PATIENCE_S = 5.0
# The progress of a run that waits: see await_machine.sh and node/machine.py.
_WAITS = re.compile(r"waiting: run (\S+) of ")


class GivingWay:
    """Which nodes of a run wait for an older one."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._waiting: set[str] = set()
        self._changed = asyncio.Event()

    def hear(self, node: str, progress: Progress | None) -> None:
        """Take in the progress of a node's run; None: no more will come."""
        match = _WAITS.match(progress.state) if progress else None
        # Ids begin with the time at which the run was opened.
        waits = bool(match and match[1] < self._run_id)
        if waits == (node in self._waiting):
            return
        if waits:
            self._waiting.add(node)
        else:
            self._waiting.discard(node)
        # Wake the nodes' coroutines.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def has_to(self, node: str) -> None:
        """Return once the node must be released for a while: another node waits for an older run, and it does not."""
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
