"""Action `cluster_aggregate`: run `python -m benchmark aggregate` on the controller.

Not through a module: Ansible would pack and unpack one to start a process that is started here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible.utils.display import Display
from node_action import CHECKOUT, NodeAction, NodeFailure
from play_settings import named_run, prometheus_dir_of

from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError
from benchmark.rundir import read_run


class ActionModule(NodeAction):
    """Needs `run`, a run's name or directory, and `failures`, what the play knows of nodes that failed."""

    _requires_connection = False
    # What was measured is summarised also where the play was stopped.
    interruptible = False

    def act(self) -> dict[str, Any]:
        """Return the summary as `text`, the run's `dir`, whether it is `valid`, and whether else to fail the play."""
        try:
            name = str(self._task.args["run"])
            run_dir = named_run(self.task_vars, name)
            asked = next(iter(read_run(run_dir).nodes.values()), None)
            prometheus_dir = prometheus_dir_of(self.task_vars)
        except InputError as error:
            raise NodeFailure(str(error)) from None
        if os.sep not in name:
            Display().display(f"The run {run_dir.name} is read from {run_dir.parent}.")
        words = [sys.executable, "-m", "benchmark", "aggregate", "--failures-from-stdin", str(run_dir)]
        words += ["--prometheus-dir", str(prometheus_dir)] if prometheus_dir else []
        done = subprocess.run(
            words,
            input=json.dumps(self._task.args["failures"]),
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (EXIT_VALID, EXIT_INVALID):
            raise NodeFailure(done.stderr.strip() or f"The summary ended with exit code {done.returncode}.")
        if done.stderr.strip():
            Display().warning(done.stderr.strip())
        return {
            "changed": False,
            "text": done.stdout.rstrip("\n"),
            "dir": str(run_dir),
            "valid": done.returncode == EXIT_VALID,
            "fail_on_invalid": asked is None or asked.settings.benchmark_fail_on_invalid,
        }
