"""Action `benchmark_start`: start the module on the node, detached and with a time limit.

In a run that is resumed it first looks what an earlier attempt left there: what has completed, or measures, is not done
again; what broke off is brought back beside the new attempt, and removed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import NodeFailure
from run_action import COMPLETED, NOTHING, RunAction

from benchmark.rundir import ATTEMPT, ORDER


class ActionModule(RunAction):
    """Idempotent: the run's directory on the node is made once, and whoever finds it made has nothing to start."""

    def act(self) -> dict[str, Any]:
        """Return when it was done, by the controller's clock.

        `changed`: whether this call started it; `adopted`: whether an earlier attempt did, which need not be told when
        to start.
        """
        if self.check_mode:
            return {"changed": True, "note": "The benchmark would be started.", "adopted": False}
        adopted = self.order.attempt > 1 and self._adopt()
        started = False
        if not adopted:
            order = (self.place / ORDER).read_text(encoding="utf-8")
            words = str(self.setting("python_env_dir")), str(self.order.limit_s or self.setting("benchmark_timeout_s"))
            started = self.script("start.sh", *words, stdin=order).strip() == "started"
        return {"changed": started, "adopted": adopted, "launched_unix_ns": time.time_ns()}

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
