"""Action `benchmark_start`: start the module on the node, detached and with a time limit."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.rundir import NODES, ORDER

START = CHECKOUT / "roles/benchmark/files/start.sh"


class ActionModule(NodeAction):
    """Idempotent: the run's directory on the node is made once, and whoever finds it made has nothing to start."""

    def act(self) -> dict[str, Any]:
        """Return `changed`: whether this call started it; and when it was done, by the controller's clock."""
        if self.check_mode:
            return {"changed": True, "note": "The benchmark would be started."}
        run_dir = Path(str(self._task.args["dir"]))
        order = (run_dir / NODES / self.node / ORDER).read_text(encoding="utf-8")
        words = [
            f"{self.setting('benchmark_work_dir')}/{run_dir.name}",
            self.node,
            str(self.setting("python_env_dir")),
            str(self.setting("benchmark_timeout_s")),
        ]
        script = shlex.quote(START.read_text(encoding="utf-8"))
        code, out, err = self.shell(f"sh -c {script} start {shlex.join(words)}", stdin=order)
        if code != 0:
            raise NodeFailure(f"The benchmark could not be started: {' '.join((err or out).split())[-300:]}")
        return {"changed": out.strip() == "started", "launched_unix_ns": time.time_ns()}
