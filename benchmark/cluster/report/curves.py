"""The curves of a sweep: each node's tokens/s per GPU against tokens/s per user, and tables of all steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from benchmark.cluster.render.curve_table import MOST_ALONE, lines_of, marked_steps, notes_of
from benchmark.cluster.report.amounts import amount, tick
from benchmark.cluster.report.drawing import COLOURS, DASHES, SERIES, Canvas, Labels, Margins, brief, series
from benchmark.cluster.report.parts import Chart, NodeGroup, Table
from benchmark.records import Curve, CurvePoint, Curves

WIDE, NARROW = 860, 340


@dataclass(frozen=True)
class Curved:
    """A group's curves as a chart, the points of all its nodes together, and the results in sentences."""

    like: NodeGroup
    chart: Chart
    together: Table
    notes: Sequence[str]
    lines: Sequence[tuple[str, str]]


def curved(like: NodeGroup, sweep: Curves | None) -> Curved | None:
    """Return what the page shows of a group's curves; None if it has none."""
    if sweep is None:
        return None
    of_group = [one for one in sweep.curves if one.group == like.number - 1]
    nodes = [one for one in of_group if one.kind == "node" and _drawn(one)]
    together = next((one for one in of_group if one.kind == "group"), None)
    if together is None or not nodes:
        return None
    title = f"Output tokens/s of a {sweep.per} against those of a user"
    words = f"{title}, a line for each of {len(nodes)} nodes. The tables below have the values."
    what = f"queries in flight on each {sweep.per}" if sweep.by == "concurrency" else "the share of a burst's rate"
    chart = Chart(
        title=title,
        note=f"One point per step, labelled with {what}; up and to the right is better",
        wide=_draw(f"curves-{like.number}-wide", WIDE, like, sweep, nodes, words),
        narrow=_draw(f"curves-{like.number}-narrow", NARROW, like, sweep, nodes, words),
        tables=[_by_node(sweep, nodes, name, words.format(per=sweep.per)) for name, words in _FIGURES],
    )
    return Curved(
        like, chart, _table(sweep, together, "The nodes together"), notes_of(sweep, together), lines_of(sweep, together)
    )


@dataclass(frozen=True)
class Uncounted:
    """The steps that an uncounted node completed, as a table and in sentences."""

    node: str
    table: Table
    notes: Sequence[str]
    lines: Sequence[tuple[str, str]]


def uncounted(sweep: Curves | None) -> list[Uncounted]:
    """Return what the page shows of uncounted nodes that measured steps; of many, the first few."""
    if sweep is None:
        return []
    curves = [one for one in sweep.curves if one.group is None]
    return [
        Uncounted(one.of, _table(sweep, one, f"Steps of {one.of}"), notes_of(sweep, one), lines_of(sweep, one))
        for one in curves[:MOST_ALONE]
    ]


_FIGURES = (
    ("tokens_per_s_per_gpu", "tokens/s of a {per}"),
    ("tokens_per_s_per_user", "tokens/s of a user"),
    ("ttft_p99_ms", "P99 TTFT ms"),
    ("tpot_p99_ms", "P99 TPOT ms"),
)


def _drawn(curve: Curve) -> list[tuple[CurvePoint, float, float]]:
    return [
        (point, point.tokens_per_s_per_user, point.tokens_per_s_per_gpu)
        for point in curve.points
        if point.tokens_per_s_per_user is not None and point.tokens_per_s_per_gpu is not None
    ]


def _draw(name: str, width: int, like: NodeGroup, sweep: Curves, nodes: Sequence[Curve], words: str) -> Markup:
    with Canvas(name, width, 320, margins=Margins(left=58, right=30)) as canvas:
        (axes,) = canvas.axes
        every = [pair for one in nodes for _, *pair in _drawn(one)]
        axes.set_xlim(*_span([x for x, _ in every]))
        axes.set_ylim(*_span([y for _, y in every]))
        labels = Labels(axes, every)
        # Marked lines are drawn on top of the others.
        for curve in sorted(nodes, key=lambda one: one.of in like.marked):
            look, points = like.marked.get(curve.of), _drawn(curve)
            colour = COLOURS["crowd"] if look is None else SERIES[look.colour]
            axes.plot(
                [x for _, x, _ in points],
                [y for _, _, y in points],
                color=colour,
                linestyle="-" if look is None else DASHES[look.dashes],
                linewidth=0.8 if look is None else 1.6,
                gid=series("curve", curve.of),
            )
            if look is not None:
                axes.plot(
                    [x for _, x, _ in points], [y for _, _, y in points], "o", color=colour, markersize=4,
                    gid=series("steps", curve.of),
                )  # fmt: skip
                labels.put(brief(curve.of), points[-1][1:])
        longest = max(nodes, key=lambda one: len(_drawn(one)))
        for point, x, y in _drawn(longest):
            step = f"{point.step:g}" if sweep.by == "concurrency" else f"{point.step:.0%}"
            labels.put(step, (x, y), COLOURS["soft"])
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        axes.locator_params(nbins=5)
        axes.set_xlabel("tokens/s of a user")
        axes.set_ylabel(f"tokens/s of a {sweep.per}")
        return canvas.svg(words)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return an axis's range: from 0 where the values come near it, else from just below them."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) if high - low > 0.01 * high else 0.02 * high
    return (0.0 if low < high / 3 else low - room), high + room


def _table(sweep: Curves, curve: Curve, caption: str) -> Table:
    heads = (
        "in flight" if sweep.by == "concurrency" else "of a burst",
        "nodes",
        f"tokens/s of a {sweep.per}",
        "of a user",
    )
    times = ("P50 TTFT ms", "P99", "P50 TPOT ms", "P99", "P50 latency ms", "P99", "tokens/J")
    currency = next((point.cost.currency for point in curve.points if point.cost), "")
    costs = (f"{currency} per million output tokens", "input tokens") if currency else ()
    rows = [
        (
            step,
            str(point.nodes),
            *map(amount, (point.tokens_per_s_per_gpu, point.tokens_per_s_per_user)),
            *map(amount, (point.ttft_p50_ms, point.ttft_p99_ms, point.tpot_p50_ms, point.tpot_p99_ms)),
            *map(amount, (point.latency_p50_ms, point.latency_p99_ms, point.tokens_per_joule)),
            *(_cost(point) if currency else ()),
        )
        for step, point in zip(marked_steps(sweep, curve), curve.points, strict=True)
    ]
    return Table(caption, (*heads, *times, *costs), rows)


def _cost(point: CurvePoint) -> tuple[str, str]:
    cost = point.cost
    return (
        amount(cost.per_million_output_tokens if cost else None),
        amount(cost.per_million_input_tokens if cost else None),
    )


def _by_node(sweep: Curves, nodes: Sequence[Curve], name: str, what: str) -> Table:
    steps = sorted({point.step for one in nodes for point in one.points})
    heads = ("node", *(f"{step:g}" if sweep.by == "concurrency" else f"{step:.0%}" for step in steps))
    rows = []
    for one in nodes:
        by_step = {point.step: amount(getattr(point, name)) for point in one.points}
        rows.append((one.of, *(by_step.get(step, "-") for step in steps)))
    return Table(f"{what} in each step", heads, rows)
