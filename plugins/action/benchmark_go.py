"""Action `benchmark_go`: tell a node that is ready when to start, the same time for all, by its own clock.

With `benchmark_drift: fail`, nodes that should be alike and are not are stopped here instead.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from run_action import RunAction

from benchmark.cluster.together import READY_FILE, agreed_start
from benchmark.files import read_record
from benchmark.records import ReadyNode
from benchmark.rundir import GO, of_repeat


class ActionModule(RunAction):
    """Whoever comes first of all nodes agrees on the time; a node that hears of it too late says so in its result.

    Needs `dir`; `repeat`, from 2, for a later measurement.
    """

    def act(self) -> dict[str, Any]:
        """Return how long before the agreed start the node was told; nothing for a node that was not ready."""
        repeat = int(self._task.args.get("repeat", 1))
        ready = self.place / of_repeat(READY_FILE, repeat)
        if not ready.is_file():
            return {"changed": False, "note": "The run has ended already."}
        # Before anything is measured: what nodes are does not change between their repeats.
        drift_fails = repeat == 1 and self.setting("benchmark_drift") == "fail"
        start = agreed_start(self.run_dir, drift_fails, self.order.attempt, repeat)
        self.require_likeness(start.drift)
        own_ns = start.start_unix_ns + read_record(ready, ReadyNode).offset_ns
        self.insist("go.sh", str(own_ns), of_repeat(GO, repeat))
        return {"changed": True, "told_ahead_s": round((start.start_unix_ns - time.time_ns()) / 1e9, 3)}
