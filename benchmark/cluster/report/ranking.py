"""The nodes of a group beside each other, best first."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from benchmark.cluster.report.amounts import amount, median, share, tick
from benchmark.cluster.report.drawing import COLOURS, SERIES, Canvas, Margins, brief, series
from benchmark.cluster.report.parts import Chart, Like
from benchmark.text import columns
from benchmark.verdict import label, value_of

# With fewer the table says it all; with more there is no room for each one's name.
FEWEST, MOST_NAMED = 4, 40
# What stands out is named, so many at most.
MOST_OUT = 6


def ranking(like: Like) -> Chart | None:
    """Return the nodes' figures as dots, with their median; None for few nodes."""
    ranked = values_of(like)
    if len(ranked) < FEWEST:
        return None
    named = len(ranked) <= MOST_NAMED
    draw = _named if named else _many
    what = label(like.ranked_by)
    middle = median(value for _, value in ranked)
    words = (
        f"{what} of {len(ranked)} nodes, best first; their median is {amount(middle)}. The table below has the values."
    )
    return Chart(
        title=f"{what} of each node",
        note="The line is the median; the axis does not begin at zero",
        wide=draw(f"ranking-{like.number}-wide", 860, like, ranked, words),
        narrow=draw(f"ranking-{like.number}-narrow", 340, like, ranked, words),
        tables=(),
    )


def values_of(like: Like) -> list[tuple[str, float]]:
    """Return node and value, best first; nodes without one are left out."""
    found = [(node.node, value_of(node.metrics, like.ranked_by)) for node in like.nodes if node.metrics]
    return [(node, value) for node, value in found if value is not None]


def _span(values: Sequence[float], middle: float) -> tuple[float, float]:
    """Return an axis on which two percent look like two percent."""
    low, high = min(*values, 0.9 * middle), max(*values, 1.1 * middle)
    room = 0.04 * (high - low)
    return low - room, high + room


def _named(name: str, width: int, like: Like, ranked: Sequence[tuple[str, float]], words: str) -> Markup:
    middle = median(value for _, value in ranked) or 0.0
    left = 24 + 7 * max(columns(brief(node)) for node, _ in ranked)
    margins = Margins(left=min(left, 150), right=64, top=8, bottom=38)
    with Canvas(name, width, 46 + 20 * len(ranked), margins=margins) as canvas:
        (axes,) = canvas.axes
        axes.axvline(middle, color=COLOURS["soft"], linewidth=1, gid=series("median"))
        for place, (node, value) in enumerate(ranked):
            colour = _colour(like, node)
            axes.plot([value], [place], "o", color=colour, markersize=7, gid=series("rank", node))
            change = share(value / middle - 1) if middle else ""
            axes.text(1.01, place, change, transform=axes.get_yaxis_transform(), va="center", color=COLOURS["soft"])
        axes.set_yticks(range(len(ranked)), [brief(node) for node, _ in ranked])
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.set_xlim(*_span([value for _, value in ranked], middle))
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        axes.set_xlabel(_unit(like))
        return canvas.svg(words)


def _many(name: str, width: int, like: Like, ranked: Sequence[tuple[str, float]], words: str) -> Markup:
    middle = median(value for _, value in ranked) or 0.0
    with Canvas(name, width, 260, margins=Margins(left=50, right=16)) as canvas:
        (axes,) = canvas.axes
        axes.axhline(middle, color=COLOURS["soft"], linewidth=1, gid=series("median"))
        for place, (node, value) in enumerate(ranked, start=1):
            axes.plot([place], [value], "o", color=_colour(like, node), markersize=4, gid=series("rank", node))
        axes.set_ylim(*_span([value for _, value in ranked], middle))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        axes.set_xlim(0, len(ranked) + 1)
        places = {node: (place, value) for place, (node, value) in enumerate(ranked, start=1)}
        for number, node in enumerate([node for node in like.marked if node in places][:MOST_OUT]):
            axes.annotate(
                brief(node),
                places[node],
                xytext=(-8, -1 - 3 * (number % 2)),
                textcoords="offset points",
                ha="right",
                va="center",
            )
        axes.set_ylabel(_unit(like))
        axes.set_xlabel("rank")
        return canvas.svg(words)


def _colour(like: Like, node: str) -> str:
    mark = like.marked.get(node)
    return COLOURS["soft"] if mark is None else SERIES[mark.colour]


def _unit(like: Like) -> str:
    return "queries per second" if like.ranked_by == "qps" else "ms"
