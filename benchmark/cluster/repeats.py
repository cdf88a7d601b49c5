"""The repeats of a run, each of all nodes together, and the median repeat, which all other figures are of.

Figures of different repeats are never mixed: window, metrics, verdict and times of every node are of one repeat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmark.cluster.arithmetic import group_nodes
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.sweep import at_step, chosen_step, swept
from benchmark.metrics import pooled_distribution
from benchmark.records import Group, RepeatRow, Repeats, Spread
from benchmark.repeats import deciding_metric, median_repeat, spreads
from benchmark.verdict import value_of


def repeats_of(nodes: Sequence[LoadedNode]) -> int:
    """Return how many repeats all counted nodes have; steps of a sweep are not repeats."""
    if any(swept(node) for node in nodes):
        return 1
    return min((1 + len(node.later) for node in nodes if node.counted), default=1)


def at_repeat(node: LoadedNode, number: int) -> LoadedNode:
    """Return the node as if that repeat, from 1, were its only measurement; an uncounted node is unchanged."""
    if number == 1 or not node.counted:
        return replace(node, later=())
    chosen = node.later[number - 2]
    return replace(
        node,
        samples=chosen.samples,
        result=chosen.result,
        metrics=chosen.metrics,
        times=chosen.times,
        time_series=chosen.time_series,
        clock=chosen.clock,
        goodput=chosen.goodput,
        later=(),
    )


def median_of(nodes: Sequence[LoadedNode]) -> tuple[tuple[LoadedNode, ...], Repeats | None]:
    """Return the nodes as they were in the median repeat of the whole run, and all repeats; None if there is only one.

    The caller, who knows of attempts, fills in the overlap of each. In a sweep, one step stands for the run in the same
    way: the lowest load with nearly the highest tokens/s.
    """
    if (step := chosen_step(nodes)) is not None:
        return tuple(at_step(node, step) for node in nodes), None
    count = repeats_of(nodes)
    if count < 2:
        return tuple(at_repeat(node, 1) for node in nodes), None
    # If a schedule sets one node's rate, it sets part of the sum.
    metrics = {deciding_metric(node.result) for node in nodes if node.counted and node.result}
    metric = next((one for one in metrics if one != "qps"), "qps")
    each = [[at_repeat(node, number) for node in nodes if node.counted] for number in range(1, count + 1)]
    values = [_value(counted, metric) for counted in each]
    chosen = median_repeat(values, metric)
    rows = tuple(
        RepeatRow(number=number, value=value, valid=sum(_valid(node) for node in counted))
        for number, (value, counted) in enumerate(zip(values, each, strict=True), start=1)
    )
    return tuple(at_repeat(node, chosen) for node in nodes), Repeats(chosen=chosen, metric=metric, rows=rows)


def node_spread(node: LoadedNode) -> tuple[Spread, ...]:
    """Return the spread of a counted node's figures; empty if it has only one repeat."""
    if not node.counted or swept(node):
        return ()
    each = [node.metrics, *(repeat.metrics for repeat in node.later)]

    def value(number: int, metric: str) -> float | None:
        metrics = each[number - 1]
        return value_of(metrics, metric)

    return spreads(value, len(each))


def with_spread(groups: Sequence[Group], nodes: Sequence[LoadedNode]) -> tuple[Group, ...]:
    """Return the groups with the spread of their figures, computed from `nodes` with all their repeats."""
    count = repeats_of(nodes)
    if count < 2:
        return tuple(groups)
    each = [group_nodes(at_repeat(n, number) for n in nodes if n.counted) for number in range(1, count + 1)]
    by_nodes = [{group.nodes: group for group in groups} for groups in each]

    def spread(group: Group) -> tuple[Spread, ...]:
        return spreads(lambda number, metric: _figure(by_nodes[number - 1][group.nodes], metric), count)

    return tuple(group.model_copy(update={"spread": spread(group)}) for group in groups)


def _value(counted: Sequence[LoadedNode], metric: str) -> float | None:
    """Return the counted nodes' combined figure: the sum of their rates, or the P50 of their pooled samples."""
    if metric == "qps":
        rates = [node.metrics.qps for node in counted if node.metrics and node.metrics.qps is not None]
        return math.fsum(rates) if rates else None
    pooled = pooled_distribution([node.times.ascending["latency_ms"] for node in counted])
    return pooled.p50 if pooled else None


def _valid(node: LoadedNode) -> bool:
    return bool(node.result and node.result.verdict and node.result.verdict.valid)


def _figure(group: Group, metric: str) -> float | None:
    value: Any = group
    for name in metric.split("."):
        value = None if value is None else getattr(value, name)
    number: float | None = value
    return number
