"""Correct the recap's counts for tasks that run once for all nodes, as if each node had had its own task.

It changes ansible-core's own counts, so that every callback shows the same, also ansible-runner's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

# Actions that run once for all nodes.
PROBE, MEASURE, OPEN = "node_probe", "benchmark_measure", "benchmark_open"
SETTINGS, SUBMISSION = "benchmark_settings", "submission"
CONTROLLER = "localhost"
FAIL = ("fail", "ansible.builtin.fail")
# The name that an invalid verdict of the whole cluster is counted for: no single node may be at fault.
CLUSTER = "cluster"


def count(result: Any) -> None:
    """Correct the counts for a task that ran once, after ansible-core has counted it for its first node."""
    action, said, first = result.task.action, result.result, result.host.get_name()
    if not (result.task.run_once and first != CONTROLLER) or (stats := _stats()) is None:
        return
    # It ran once for all nodes, so it is not work on its first node.
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
    """Remove the count of a skipped task that would have run once for all nodes."""
    if result.task.run_once and (stats := _stats()) is not None:
        stats.decrement("skipped", result.host.get_name())


def count_failure(result: Any) -> None:
    """Count the failure of a task that ran once for all nodes, since it ends their work; a verdict for none of them."""
    if not result.task.run_once or (stats := _stats()) is None:
        return
    first = result.host.get_name()
    if is_verdict(result):
        stats.decrement("failures", first)
        stats.increment("failures", CLUSTER)
    elif result.task.action in (SETTINGS, OPEN, PROBE, SUBMISSION):
        _increment(stats, [node for node in _nodes() if node != first], "failures")


def is_verdict(result: Any) -> bool:
    """Return whether the task failed because of the cluster's verdict."""
    return bool(result.task.run_once) and result.task.action in FAIL


def _increment(stats: Any, nodes: Iterable[str], *counts: str) -> None:
    for node in nodes:
        for name in counts:
            stats.increment(name, node)


def _stats() -> Any:
    """Return the play's counts from a caller's frame: callbacks receive them only at the end, when they are printed."""
    for names in _callers():
        stats = getattr(names.get("self"), "_stats", None)
        if stats is not None and hasattr(stats, "increment"):
            return stats
    return None


def _nodes() -> list[str]:
    """Return the play's nodes from a caller's frame: only the strategy knows them."""
    for names in _callers():
        strategy, iterator = names.get("self"), names.get("iterator")
        if iterator is not None and strategy is not None and hasattr(strategy, "_inventory"):
            return [host.name for host in strategy._inventory.get_hosts(iterator._play.hosts)]
    return []


def _callers() -> Iterator[dict[str, Any]]:
    """Yield the local variables of each caller, the nearest first."""
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back
