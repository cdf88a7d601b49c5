"""Callback `benchmark_next`: end the output with the run's report and the next command.

A task could not do this: tasks that fail nodes come after the summary, and the recap after them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

from ansible import context
from ansible.plugins.callback import CallbackBase
from checkout import CHECKOUT
from command_line import command_line
from recap import CLUSTER

from benchmark.cluster.names import natural
from benchmark.cluster.next_steps import after_playbook, next_steps, without_summary
from benchmark.errors import InputError

DOCUMENTATION = """
    name: benchmark_next
    type: notification
    short_description: says where a run's report is, and which command comes next
    description:
        - Ends the output of every playbook that summarised or prepared a run.
    requirements:
        - enabled in configuration
"""

# The actions that open a run, and that write its summary.
OPENS, SUMMARISES = "benchmark_open", "cluster_aggregate"


class CallbackModule(CallbackBase):  # type: ignore[misc] # ansible-core has no types
    """Remembers which run was summarised."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "benchmark_next"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._opened: Path | None = None
        self._run_dir: Path | None = None
        self._playbook = ""
        self._declined: set[str] = set()
        self._measurable = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Remember the playbook."""
        self._playbook = Path(playbook._file_name).stem

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember the run's directory, and nodes with declined host keys."""
        if result.result.get("declined"):
            self._declined.add(result.host.get_name())
        self._measurable &= bool(result.result.get("measurable", True))
        if result.task.action == OPENS and result.result.get("dir"):
            self._opened = Path(result.result["dir"])
        if result.task.action == SUMMARISES and result.result.get("dir"):
            self._run_dir = Path(result.result["dir"])

    def _after(self, stats: Any) -> list[str]:
        # After a part of the playbook, or in check mode, no command comes next.
        if context.CLIARGS.get("check") or list(context.CLIARGS.get("tags") or ["all"]) != ["all"]:
            return []
        nodes = sorted(set(stats.processed) - {"localhost", CLUSTER}, key=natural)
        counts = {node: stats.summarize(node) for node in nodes}
        failed = [n for n in nodes if counts[n]["failures"] or counts[n]["unreachable"] or n in self._declined]
        extras = [str(extra) for extra in context.CLIARGS.get("extra_vars") or ()]
        command = command_line(sys.argv, extras, checkout=CHECKOUT, cwd=Path.cwd()).text
        well = [node for node in nodes if node not in failed]
        return after_playbook(self._playbook, well, failed, command, self._measurable)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show the lines below the recap."""
        try:
            if self._run_dir is not None:
                lines = next_steps(self._run_dir)
            else:
                lines = without_summary(self._opened) if self._opened else self._after(stats)
        except InputError as error:
            self._display.warning(str(error))
            return
        for line in lines:
            self._display.display(line)
