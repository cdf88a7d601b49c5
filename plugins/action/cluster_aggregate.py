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

from node_action import CHECKOUT, NodeAction, NodeFailure

from benchmark.errors import EXIT_INVALID, EXIT_VALID


class ActionModule(NodeAction):
    """Needs `dir`, the run's directory, and `failures`, what the play knows of nodes that failed."""

    _requires_connection = False
    # What was measured is summarised also where the play was stopped.
    interruptible = False

    def act(self) -> dict[str, Any]:
        """Return the summary as `text`, and whether the verdict is `valid`."""
        words = [sys.executable, "-m", "benchmark", "aggregate", "--failures-from-stdin", str(self._task.args["dir"])]
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
        return {"changed": False, "text": done.stdout.rstrip("\n"), "valid": done.returncode == EXIT_VALID}
