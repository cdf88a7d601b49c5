"""The recap's counts of what one task did for all nodes: as if each had had a task of its own.

Those counts are ansible-core's own, so that every callback shows the same: the terminal's, and ansible-runner's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

# The actions that run once, for all nodes; and those that change nothing on a node, but files of the run.
PROBE, MEASURE, OPEN = "node_probe", "benchmark_measure", "benchmark_open"
SETTINGS, SUBMISSION = "benchmark_settings", "submission"
CONTROLLER = "localhost"
FAIL = ("fail", "ansible.builtin.fail")
# What an invalid verdict of all nodes together is counted for: none of them need have done anything wrong.
CLUSTER = "cluster"


def count(result: Any) -> None:
    """Count what the task of this result did, once it is counted for the node in whose name it ran."""
    action, said, first = result.task.action, result.result, result.host.get_name()
    if not (result.task.run_once and first != CONTROLLER) or (stats := _stats()) is None:
        return
    # Done once, for all of them: it is no work on the node in whose name it ran.
    stats.decrement("ok", first)
    if action == PROBE:
        for node, roles in said.get("settled", {}).items():
            if node not in said.get("done", ()):
                _increment(stats, [node] * len(roles), "ok")
        return
    if action in (MEASURE, OPEN) and said.get("changed"):
        stats.decrement("changed", first)
    if action == MEASURE:
        _increment(stats, said.get("would") or said.get("fetched", ()), "ok", "changed")


def count_skipped(result: Any) -> None:
    """Count nothing for a node in whose name a task would have run once."""
    if result.task.run_once and (stats := _stats()) is not None:
        stats.decrement("skipped", result.host.get_name())


def count_failure(result: Any) -> None:
    """Count the failure of a task that ran once: for all nodes, whose work it ended; a verdict for none of them."""
    if not result.task.run_once or (stats := _stats()) is None:
        return
    first = result.host.get_name()
    if is_verdict(result):
        stats.decrement("failures", first)
        stats.increment("failures", CLUSTER)
    elif result.task.action in (SETTINGS, OPEN, PROBE, SUBMISSION):
        _increment(stats, [node for node in _nodes() if node != first], "failures")


def is_verdict(result: Any) -> bool:
    """Return whether the task failed for the verdict of all nodes together."""
    return bool(result.task.run_once) and result.task.action in FAIL


def _increment(stats: Any, nodes: Iterable[str], *counts: str) -> None:
    for node in nodes:
        for name in counts:
            stats.increment(name, node)


def _stats() -> Any:
    """Return the counts of the play, which callbacks are given at its end alone, when they are being printed."""
    for names in _callers():
        stats = getattr(names.get("self"), "_stats", None)
        if stats is not None and hasattr(stats, "increment"):
            return stats
    return None


def _nodes() -> list[str]:
    """Return the nodes of the play, which only the strategy knows."""
    for names in _callers():
        strategy, iterator = names.get("self"), names.get("iterator")
        if iterator is not None and strategy is not None and hasattr(strategy, "_inventory"):
            return [host.name for host in strategy._inventory.get_hosts(iterator._play.hosts)]
    return []


def _callers() -> Iterator[dict[str, Any]]:
    """Yield the local names of each caller, the nearest first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back
