"""Action `benchmark_solo`: let the node measure alone, and wait until it has: one node after the other."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import NodeFailure
from run_action import RunAction

from benchmark.cluster.together import READY_FILE, drift_of_ready
from benchmark.rundir import TURN_OVER


class ActionModule(RunAction):
    """A node that does not come to the end of its turn is stopped; one that fails in it has failed. Others go on."""

    def act(self) -> dict[str, Any]:
        """Return `alone`: whether it measured alone. Why a run ended instead, `benchmark_collect` finds out."""
        if not (self.place / READY_FILE).is_file():
            return {"changed": False, "alone": False, "note": "The run has ended already."}
        if self.setting("benchmark_drift") == "fail":
            # Here, since `benchmark_go` comes after the turns; what a turn takes is longer than this by far.
            self.require_likeness(drift_of_ready(self.run_dir))
        limit_s = int(self.setting("benchmark_timeout_s"))
        self.insist("turn.sh")
        state = self.wait_for(TURN_OVER, time.monotonic() + limit_s)
        if state is None:
            self.end()
            limit = f"benchmark_timeout_s = {limit_s} s"
            raise NodeFailure(f"Measuring alone did not end within {limit}: it was stopped; the others go on.")
        if state != TURN_OVER:
            # It has ended: it is not to be told a start.
            (self.place / READY_FILE).unlink()
        return {"changed": True, "alone": state == TURN_OVER}
