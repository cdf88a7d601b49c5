"""The recap's counts of what one task did for all nodes: as if each had had a task of its own.

Those counts are ansible-core's own, so that every callback shows the same: the terminal's, and ansible-runner's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

# The actions that run once, for all nodes; and those that change nothing on a node, but files of the run.
PROBE, MEASURE, OPEN = "node_probe", "benchmark_measure", "benchmark_open"


def count(result: Any) -> None:
    """Count what the task of this result did, once it is counted for the node in whose name it ran."""
    action, said, first = result.task.action, result.result, result.host.get_name()
    if action not in (PROBE, MEASURE, OPEN) or (stats := _stats()) is None:
        return
    if action == PROBE:
        for node, roles in said.get("settled", {}).items():
            if node not in said.get("done", ()):
                _increment(stats, [node] * len(roles), "ok")
        return
    if said.get("changed"):
        stats.decrement("changed", first)
    if action == MEASURE:
        stats.decrement("ok", first)
        _increment(stats, said.get("would") or said.get("fetched", ()), "ok", "changed")


def _increment(stats: Any, nodes: Iterable[str], *counts: str) -> None:
    for node in nodes:
        for name in counts:
            stats.increment(name, node)


def _stats() -> Any:
    """Return the counts of the play, which callbacks are given at its end alone, when they are being printed."""
    frame = inspect.currentframe()
    while frame is not None:
        stats = getattr(frame.f_locals.get("self"), "_stats", None)
        if stats is not None and hasattr(stats, "increment"):
            return stats
        frame = frame.f_back
    return None
