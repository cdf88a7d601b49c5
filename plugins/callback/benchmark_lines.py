"""Callback `benchmark_lines`: ansible-core's own output, with one line per task for all nodes that went well.

Two hundred nodes would be two hundred lines for every task. What failed is shown as ever, node by node.
"""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
    name: benchmark_lines
    type: stdout
    short_description: the default output, with one line per task for all nodes that went well
    description:
        - As the default, but nodes that went well are told in one line per task, and in one line of the recap, where
          they are many.
    extends_documentation_fragment:
        - default_callback
        - result_format_callback
    requirements:
        - set as stdout in configuration
"""

# So many nodes have a line each.
EACH = 8
NAMES = 5
# The action that runs once, for all nodes.
TOGETHER = "benchmark_together"


class CallbackModule(Default):  # type: ignore[misc] # ansible-core has no types
    """Gathers what went well until the next task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "benchmark_lines"

    def __init__(self) -> None:
        super().__init__()
        self._well: dict[str, list[str]] = {}
        self._home: set[str] = set()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Keep it for the task's line, unless there is more to show than that it went well."""
        if result.task.action == TOGETHER:
            self._home.update(result.result.get("home", ()))
        plain = not (result.task.loop or self._run_is_verbose(result) or result.result.get("warnings"))
        if not plain or result.task.delegate_to or result.task.run_once or "exception" in result.result:
            super().v2_runner_on_ok(result)
            return
        told = "changed" if result.result.get("changed") else "ok"
        nodes = self._well.setdefault(told, [])
        nodes.append(result.host.get_name())
        if len(nodes) <= EACH:
            super().v2_runner_on_ok(result)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Tell how the last task went, and begin another."""
        self._tell()
        super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Tell how the last play's last task went."""
        self._tell()
        super().v2_playbook_on_play_start(play)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show those that failed, and some of the others, in the recap."""
        self._tell()
        # It did for each what a task of its own would have done, and the recap is where a node is looked for.
        for node in self._home - set(stats.processed):
            stats.increment("ok", node)
            stats.increment("changed", node)
        super().v2_playbook_on_stats(stats)

    def _tell(self) -> None:
        for told, nodes in self._well.items():
            if rest := nodes[EACH:]:
                names = ", ".join(rest[:NAMES]) + (f" and {len(rest) - NAMES} more" if len(rest) > NAMES else "")
                color = constants.COLOR_CHANGED if told == "changed" else constants.COLOR_OK
                self._display.display(f"{told}: {len(rest)} more ({names})", color=color)
        self._well = {}
