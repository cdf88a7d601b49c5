"""The repeats of a run: each node's figures in each repeat, and how far they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.cluster.render.stability import SHOWN
from benchmark.cluster.report.amounts import amount, median
from benchmark.cluster.report.dots import Axis, Dot, Strip, at_right, dot_charts
from benchmark.cluster.report.parts import Chart, NodeGroup, Table
from benchmark.cluster.report.ranking import axis_label
from benchmark.records import Repeats, Spread
from benchmark.verdict import label, unit

# With more, only the lowest, the highest and the repeat that counts are drawn: keeps a page of 200 nodes small.
MOST_DOTS = 1000


@dataclass(frozen=True)
class Repeated:
    """A group's repeats: the deciding metric as a chart and a table, the others as tables."""

    like: NodeGroup
    chart: Chart
    deciding: Table


def repeating(like: NodeGroup, repeats: Repeats | None) -> Repeated | None:
    """Return what the page shows of a group's repeats; None if there is only one, or a node lacks the figure."""
    if repeats is None or not (strips := list(_strips(like, repeats))):
        return None
    what = label(repeats.metric)
    values = [dot.value for strip in strips for dot in strip.dots]
    words = f"{what} of {len(strips)} nodes in each of {len(repeats.rows)} repeats. The tables below have the values."
    axis = Axis(axis_label(repeats.metric), median(values) or 0.0)
    wide, narrow = dot_charts("repeats", like, strips, axis, words)
    chart = Chart(
        title=f"{what} of each node in each repeat",
        note=f"Filled: repeat {repeats.chosen}, which all other figures are of; hollow: "
        + ("the others" if _every(like, repeats) else "the lowest and the highest of the others")
        + at_right(strips, "the coefficient of variation"),
        wide=wide,
        narrow=narrow,
        tables=[_table(like, metric, repeats) for metric in SHOWN if metric != repeats.metric],
    )
    return Repeated(like, chart, _table(like, repeats.metric, repeats))


def _every(like: NodeGroup, repeats: Repeats) -> bool:
    return len(like.nodes) * len(repeats.rows) <= MOST_DOTS


def _strips(like: NodeGroup, repeats: Repeats) -> Iterator[Strip]:
    every = _every(like, repeats)
    for node in like.nodes:
        one = _of(like.rows[node.node].spread, repeats.metric)
        if one is not None:
            dots = [
                Dot((f"repeat-{number}", node.node), value, filled=number == repeats.chosen)
                for number, value in enumerate(one.values, start=1)
                if every or number == repeats.chosen or value in (one.lowest, one.highest)
            ]
            # The repeat that counts is drawn on top of the others.
            dots.sort(key=lambda dot: dot.filled)
            yield Strip(node.node, dots, f"{one.cv:.1%}", alarm=not one.stable)


def _table(like: NodeGroup, metric: str, repeats: Repeats) -> Table:
    spreads = [(node.node, _of(like.rows[node.node].spread, metric)) for node in like.nodes]
    if len(like.nodes) > 1:
        together = "all nodes: sum" if metric in ("qps", "tokens_per_s") else "all nodes: pooled"
        spreads.append((together, _of(like.group.spread, metric)))
    numbers = [f"{row.number}{' (counts)' if row.number == repeats.chosen else ''}" for row in repeats.rows]
    heads = ("node", *(f"repeat {number}" for number in numbers), "median", "variation")
    return Table(f"{label(metric)}{unit(metric)} in each repeat", heads, [_cells(*pair) for pair in spreads if pair[1]])


def _cells(name: str, one: Spread | None) -> tuple[str, ...]:
    if one is None:
        return (name,)
    words = f"{one.cv:.1%}" + ("" if one.stable else ", not stable")
    return (name, *map(amount, one.values), amount(one.median), words)


def _of(spread: Sequence[Spread], metric: str) -> Spread | None:
    return next((one for one in spread if one.metric == metric), None)
