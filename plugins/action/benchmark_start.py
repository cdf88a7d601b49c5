"""Action `benchmark_start`: look what an earlier attempt left on the node, and start what need not wait for others.

What has completed, or measures, is not done again; what broke off is brought back beside the new attempt, and removed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import NodeFailure
from run_action import COMPLETED, NOTHING, RunAction

from benchmark.rundir import ATTEMPT


class ActionModule(RunAction):
    """A step of `node_prepare`. Runs that wait for each other are started by `benchmark_together`."""

    def act(self) -> dict[str, Any]:
        """Return `changed`, and whether what is there is `adopted`: the node need not be told when to start."""
        if self.check_mode:
            return {"changed": True, "note": "The benchmark would be started.", "adopted": False}
        adopted = self.order.attempt > 1 and self._adopt()
        started = not adopted and self.order.wait_s is None and self.start()
        return {"changed": started, "adopted": adopted}

    def _adopt(self) -> bool:
        """Tell whether what is on the node is this run's, complete or measuring; keep and remove what is neither."""
        state, _, number = self.script("earlier.sh").strip().partition(" ")
        if state == NOTHING:
            return False
        if state in (*COMPLETED, "running"):
            self.say(
                "an earlier attempt " + ("still measures" if state == "running" else "completed here: not run again")
            )
            return True
        if state == "waits":
            self.say("an earlier attempt waits for a start that never comes: stopping it")
            self.script("stop.sh")
        aside = self.place / f"{ATTEMPT}{int(number) if number.isdigit() else self.order.attempt - 1}"
        aside.mkdir(exist_ok=True)
        if not self.fetch(into=aside):
            raise NodeFailure(f"What an earlier attempt left could not be brought back; look at it: {self.on_node}.")
        self.script("clean.sh")
        return False
