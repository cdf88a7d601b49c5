"""What nodes measured alone compared with what they measured together."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from benchmark.cluster.report.amounts import amount, median, share
from benchmark.cluster.report.dots import Axis, Dot, Strip, at_right, dot_charts
from benchmark.cluster.report.parts import Chart, NodeGroup
from benchmark.cluster.report.ranking import axis_label
from benchmark.cluster.solo import FIGURES
from benchmark.records import SoloChange
from benchmark.verdict import label, unit


@dataclass(frozen=True)
class Shared:
    """A group's nodes alone and together, largest loss first. `heads`: the figures, each with three cells in a row."""

    like: NodeGroup
    chart: Chart | None
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], bool]]
    """Node, cells, and whether it lost more than repeated measurements of one node differ by."""


def sharing(like: NodeGroup, lost: Container[str]) -> Shared | None:
    """Return what the page shows of a group whose nodes were also measured alone; None if none was.

    `lost`: the nodes that lost more than repeated measurements of one node differ by.
    """
    reported = {node.node: {one.metric: one for one in like.rows[node.node].solo} for node in like.nodes}
    known = {node: by_metric for node, by_metric in reported.items() if by_metric}
    if not known:
        return None
    metric = like.ranked_by
    more_is_worse = metric != "qps"
    order = sorted(known, key=lambda node: _change(known[node].get(metric), more_is_worse))
    cells = {node: [cell for name in FIGURES for cell in _cells(known[node].get(name))] for node in order}
    return Shared(
        like=like,
        chart=_chart(like, metric, [(node, known[node][metric]) for node in order if metric in known[node]], lost),
        heads=[f"{label(name)}{unit(name)}" for name in FIGURES],
        rows=[(node, cells[node], node in lost) for node in order],
    )


def _change(one: SoloChange | None, more_is_worse: bool) -> float:
    if one is None:
        return float("inf")
    return -one.change if more_is_worse else one.change


def _cells(one: SoloChange | None) -> tuple[str, str, str]:
    return ("-", "-", "-") if one is None else (amount(one.alone), amount(one.together), share(one.change))


def _chart(like: NodeGroup, metric: str, pairs: Sequence[tuple[str, SoloChange]], lost: Container[str]) -> Chart | None:
    if not pairs:
        return None
    strips = [
        Strip(
            node,
            [Dot(("alone", node), one.alone, filled=False), Dot(("together", node), one.together)],
            share(one.change),
            alarm=node in lost,
        )
        for node, one in pairs
    ]
    what = label(metric)
    middle = median(dot.value for strip in strips for dot in strip.dots) or 0.0
    words = f"{what} of {len(strips)} nodes alone and together, largest loss first. The table below has the values."
    wide, narrow = dot_charts("sharing", like, strips, Axis(axis_label(metric), middle), words)
    note = "Hollow: alone; filled: together with the others; largest loss first" + at_right(strips, "the change")
    return Chart(f"{what} of each node, alone and together", note, wide, narrow, ())
