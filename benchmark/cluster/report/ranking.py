"""A chart of a group's nodes, best first."""

from __future__ import annotations

from benchmark.cluster.report.amounts import amount, median, share
from benchmark.cluster.report.dots import Axis, Dot, Strip, dot_charts
from benchmark.cluster.report.parts import Chart, NodeGroup
from benchmark.verdict import label, value_of

# With fewer nodes the table is enough.
FEWEST = 4


def ranking(like: NodeGroup) -> Chart | None:
    """Return the nodes' figures as dots, with their median; None if there are few nodes."""
    ranked = values_of(like)
    if len(ranked) < FEWEST:
        return None
    what = label(like.ranked_by)
    middle = median(value for _, value in ranked) or 0.0
    words = (
        f"{what} of {len(ranked)} nodes, best first; their median is {amount(middle)}. The table below has the values."
    )
    strips = [
        Strip(node, [Dot(("rank", node), value)], share(value / middle - 1) if middle else "") for node, value in ranked
    ]
    wide, narrow = dot_charts("ranking", like, strips, Axis(axis_label(like.ranked_by), middle, line=True), words)
    return Chart(
        title=f"{what} of each node",
        note="The line is the median; the axis does not start at zero",
        wide=wide,
        narrow=narrow,
        tables=(),
    )


def values_of(like: NodeGroup) -> list[tuple[str, float]]:
    """Return (node, value), best first; nodes without a value are left out."""
    found = [(node.node, value_of(node.metrics, like.ranked_by)) for node in like.nodes if node.metrics]
    return [(node, value) for node, value in found if value is not None]


def axis_label(metric: str) -> str:
    """Return the unit on the metric's axis."""
    return {"qps": "queries per second", "tokens_per_s": "tokens per second"}.get(metric, "ms")
