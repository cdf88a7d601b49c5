"""Callback `benchmark_lines`: ansible-core's default output, with one line per task for all nodes that succeeded.

Two hundred nodes would need two hundred lines for every task. Failures are shown as usual, node by node.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))

import recap
from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
    name: benchmark_lines
    type: stdout
    short_description: the default output, with one line per task for all nodes that succeeded
    description:
        - As the default, but if many nodes succeed, they share one line per task, and one line of the recap.
    extends_documentation_fragment:
        - default_callback
        - result_format_callback
    requirements:
        - set as stdout in configuration
"""

# This many nodes get their own lines.
EACH = 8
NAMES = 5
# Counts of the recap that give a node its own line.
NOT_WELL = ("unreachable", "failures", "rescued", "ignored")
# The action that runs once, for all nodes.
MEASURE = "benchmark_measure"
# Actions that may take minutes; none of them is ever skipped.
LONG = ("node_probe", "preflight", "python_env", "engine_env", "hf_cache", MEASURE, "cluster_aggregate")


class CallbackModule(Default):  # type: ignore[misc] # ansible-core has no types
    """Collects successes until the next task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "benchmark_lines"

    def __init__(self) -> None:
        super().__init__()
        self._well: dict[str, list[str]] = {}
        # The reasons for failures that were shown, by node.
        self._reasons: dict[str, list[str]] = {}

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Show a long task when it begins: since skipped tasks are hidden, ansible-core would show it at its end."""
        super().v2_runner_on_start(host, task)
        if task.action in LONG and self._last_task_banner != task._uuid:
            self._print_task_banner(task)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Keep the success for the task's line, unless there is more to show."""
        if result.task.action == MEASURE:
            self._measured(result)
            return
        plain = not (result.task.loop or self._run_is_verbose(result) or result.result.get("warnings"))
        if not plain or result.task.delegate_to or result.task.run_once or "exception" in result.result:
            super().v2_runner_on_ok(result)
            return
        reported = "changed" if result.result.get("changed") else "ok"
        nodes = self._well.setdefault(reported, [])
        nodes.append(result.host.get_name())
        if len(nodes) <= EACH:
            super().v2_runner_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Show why a node failed, once: later tasks fail it again for the same reason, so that it counts as failed."""
        reason, node = result.result.get("msg"), result.host.get_name()
        if not isinstance(reason, str) or ignore_errors or self._display.verbosity:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        before = self._reasons.setdefault(node, [])
        if any(" ".join(shown.split()) in " ".join(reason.split()) for shown in before):
            self._failed(result, "See the reason above.")
        elif "stage" in result.result or result.task.action in recap.FAIL:
            before.append(reason)
            # As plain text: YAML would add quotes and line breaks.
            self._failed(result, "".join(f"\n    {_printable(line)}" for line in reason.splitlines()))
        else:
            before.append(reason)
            super().v2_runner_on_failed(result, ignore_errors)

    def _failed(self, result: Any, why: str) -> None:
        if self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)
        whose = recap.CLUSTER if recap.is_verdict(result) else result.host.get_name()
        line = f"fatal: [{whose}]: FAILED! {why}".replace("! \n", "!\n")
        self._display.display(line, color=constants.COLOR_ERROR)

    def _measured(self, result: Any) -> None:
        """Show the result as if each node had had its own task."""
        super().v2_runner_on_ok(result)
        first = result.host.get_name()
        nodes = self._well["changed"] = [first, *sorted(set(result.result.get("fetched", ())) - {first})]
        for node in nodes[1:EACH]:
            self._display.display(f"changed: [{node}]", color=constants.COLOR_CHANGED)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Report on the last task before the next one begins."""
        self._report()
        super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Report on the last play's last task."""
        self._report()
        super().v2_playbook_on_play_start(play)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say that no node needs the play, rather than that no host matched."""
        self._display.display("skipping: no node needs this play", color=constants.COLOR_SKIP)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Show the recap, where many successful nodes with the same counts share a line."""
        self._report()
        alike: dict[tuple[int, ...], list[str]] = {}
        for node in sorted(stats.processed):
            counts = stats.summarize(node)
            if not any(counts[name] for name in NOT_WELL):
                alike.setdefault((counts["ok"], counts["changed"]), []).append(node)
        shown = copy.copy(stats)
        hidden = {node for nodes in alike.values() for node in nodes[EACH:]}
        shown.processed = {node: seen for node, seen in stats.processed.items() if node not in hidden}
        super().v2_playbook_on_stats(shown)
        for (ok, changed), nodes in alike.items():
            if more := nodes[EACH:]:
                color = constants.COLOR_CHANGED if changed else constants.COLOR_OK
                self._display.display(f"{_and_more(more)}: ok={ok} changed={changed}, each\n", color=color)

    def _report(self) -> None:
        for reported, nodes in self._well.items():
            if rest := nodes[EACH:]:
                color = constants.COLOR_CHANGED if reported == "changed" else constants.COLOR_OK
                self._display.display(f"{reported}: {_and_more(rest)}", color=color)
        self._well = {}


def _and_more(nodes: list[str]) -> str:
    names = ", ".join(nodes[:NAMES]) + (f" and {len(nodes) - NAMES} more" if len(nodes) > NAMES else "")
    return f"{len(nodes)} more ({names})"


def _printable(line: str) -> str:
    """Return a line without control characters: a reason may quote a node's server or log."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)
