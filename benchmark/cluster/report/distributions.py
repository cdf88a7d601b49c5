"""Distributions of times per node: the share of queries that took no longer than a given time (ECDF)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cluster.report.amounts import amount, tick
from benchmark.cluster.report.drawing import BEHIND, COLOURS, DASHES, SERIES, Canvas, Margins, draw_line, series
from benchmark.cluster.report.parts import Chart, NodeGroup, Table
from benchmark.cluster.results.load import LoadedNode
from benchmark.metrics import PERCENTILES
from benchmark.records import Distribution

WIDTH, HEIGHT = 330, 236
# Most points of a curve, and of all curves of a chart together: keeps a page of 200 nodes small.
MOST_POINTS, LEAST_POINTS, ALL_POINTS = 200, 40, 9000
# Above this ratio the axis of times is logarithmic.
WIDE_RANGE = 20
_COLUMNS = ("min", "p50", "p90", "p95", "p99", "max")


@dataclass(frozen=True)
class Measure:
    """One distribution of a node's metrics, and the times behind it."""

    metric: str
    title: str
    note: str

    def times(self, node: LoadedNode) -> Sequence[float]:
        """Return the node's times in milliseconds, in ascending order."""
        return node.times.ascending.get(self.metric, ())

    def spread(self, node: LoadedNode) -> Distribution | None:
        """Return the distribution of the node's times."""
        spread: Distribution | None = getattr(node.metrics, self.metric, None)
        return spread


MEASURES = (
    Measure("latency_ms", "Latency", "from scheduled to the last token"),
    Measure("ttft_ms", "Time to first token (TTFT)", "from scheduled to the first token"),
    Measure("tpot_ms", "Time per output token (TPOT)", "from the first token to the last, per token"),
)


def ecdf(ordered: Sequence[float], most: int) -> list[tuple[float, float]]:
    """Return (value, share of the values that do not exceed it) for ascending values: all of them, or `most`.

    Of many, one half covers the lower nine tenths and the other half the rest, where limits are; the smallest, the
    largest and the percentiles of the tables are always included.
    """
    count = len(ordered)
    places = range(count)
    if count > most:
        half = most // 2
        chosen = {0, count - 1, *(int(count * fraction) for fraction in PERCENTILES.values())}
        chosen |= {int(count * 0.9 * step / half) for step in range(half)}
        chosen |= {int(count * (0.9 + 0.1 * step / half)) for step in range(half)}
        return [(ordered[place], (place + 1) / count) for place in sorted(chosen)]
    return [(ordered[place], (place + 1) / count) for place in places]


def distributions(like: NodeGroup) -> list[Chart]:
    """Return a chart for each kind of time that a node of the group has."""
    return [_chart(like, measure) for measure in MEASURES if any(measure.times(node) for node in like.nodes)]


def _chart(like: NodeGroup, measure: Measure) -> Chart:
    most = min(MOST_POINTS, max(LEAST_POINTS, ALL_POINTS // len(like.nodes)))
    curves = {node.node: ecdf(measure.times(node), most) for node in like.nodes if measure.times(node)}
    limits = like.limits.get(measure.metric, ())
    with Canvas(f"{measure.metric}-{like.number}", WIDTH, HEIGHT, margins=Margins(left=42, right=12)) as canvas:
        (axes,) = canvas.axes
        largest = max(curve[-1][0] for curve in curves.values())
        smallest = min(curve[0][0] for curve in curves.values())
        if smallest > 0 and largest / smallest > WIDE_RANGE:
            axes.set_xscale("log")
        for node in [*(n.node for n in like.crowd), *like.marked]:
            if node not in curves:
                continue
            look = like.marked.get(node)
            x, y = zip(*[(curves[node][0][0], 0.0), *curves[node]], strict=True)
            draw_line(
                axes,
                x,
                [100 * part for part in y],
                color=COLOURS["crowd"] if look is None else SERIES[look.colour],
                linestyle="-" if look is None else DASHES[look.dashes],
                linewidth=0.8 if look is None else 1.8,
                gid=series(measure.metric, node),
            )
        reach = max([largest, *(limit for _, limit in limits if limit <= 3 * largest)])
        if axes.get_xscale() == "log":
            axes.set_xlim(smallest / 1.15, reach * 1.15)
        else:
            room = 0.05 * (reach - smallest) or 0.05 * reach or 1.0
            axes.set_xlim(smallest - room, reach + room)
        for percentile, limit in limits:
            _limit(canvas, percentile, limit, measure.metric)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 50, 90, 100], ["", "50 %", "90 %", "100 %"])
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.locator_params(axis="x", nbins=5) if axes.get_xscale() == "linear" else None
        axes.set_xlabel("ms")
        drawn = canvas.svg(
            f"{measure.title} of {len(curves)} nodes: share of queries that took at most so many milliseconds. "
            f"{_words(limits)}The table below has the values."
        )
    return Chart(measure.title, measure.note, drawn, None, [_table(like, measure)])


def _words(limits: Sequence[tuple[str, float]]) -> str:
    return "".join(f"Limit of {percentile.upper()}: {amount(limit)} ms. " for percentile, limit in limits)


def _limit(canvas: Canvas, percentile: str, limit: float, metric: str) -> None:
    (axes,) = canvas.axes
    low, high = axes.get_xlim()
    text = f"{percentile.upper()} limit {amount(limit)} ms"
    if limit > high:
        # Drawn to scale, it would leave no room for the curves.
        axes.text(
            0.99,
            0.05,
            f"{text} \N{RIGHTWARDS ARROW}",
            transform=axes.transAxes,
            ha="right",
            color=COLOURS["limit"],
            bbox=BEHIND,
        )
        return
    axes.axvline(limit, color=COLOURS["limit"], linewidth=1.4, gid=series("limit", metric))
    at_right = limit > (low + high) / 2
    axes.annotate(
        text,
        (limit, 5),
        xytext=(-5 if at_right else 5, 0),
        textcoords="offset points",
        ha="right" if at_right else "left",
        color=COLOURS["limit"],
        bbox=BEHIND,
    )


def _table(like: NodeGroup, measure: Measure) -> Table:
    rows = []
    for node in like.nodes:
        spread = measure.spread(node)
        if spread is not None:
            cells = [amount(getattr(spread, c)) + ("*" if c in spread.insufficient else "") for c in _COLUMNS]
            rows.append((node.node, str(spread.count), *cells))
    heads = ("node", "queries", *(f"{c.upper() if c[0] == 'p' else c} ms" for c in _COLUMNS))
    return Table(f"{measure.title} per node", heads, rows)
