"""Callback `benchmark_next`: the last lines, where a run's report is and which command comes next.

A task would not do: the tasks that fail nodes come after the summary, and the recap after them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import checkout  # noqa: F401 # makes the package importable
from ansible.plugins.callback import CallbackBase

from benchmark.cluster.next_steps import next_steps
from benchmark.errors import InputError

DOCUMENTATION = """
    name: benchmark_next
    type: notification
    short_description: where a run's report is, and which command comes next
    description:
        - Ends the output of every playbook that summarised a run.
    requirements:
        - enabled in configuration
"""

# The action that writes the summary.
SUMMARISES = "cluster_aggregate"


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible-core has no types
    """Remembers which run was summarised."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "benchmark_next"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._run_dir: Path | None = None

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember the run's directory."""
        if result.task.action == SUMMARISES and result.result.get("dir"):
            self._run_dir = Path(result.result["dir"])

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show the lines, beneath the recap."""
        if self._run_dir is None:
            return
        try:
            for line in next_steps(self._run_dir):
                self._display.display(line)
        except InputError as error:
            self._display.warning(str(error))
