"""A group's nodes over earlier runs with the same settings, and the runs at which one changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.ticker import FixedLocator

from benchmark.cluster.diagnosis.aspects import Aspect
from benchmark.cluster.history import history_of_run
from benchmark.cluster.history.show import day
from benchmark.cluster.report.amounts import amount, median, tick
from benchmark.cluster.report.drawing import COLOURS, DASHES, SERIES, Canvas, Margins, series
from benchmark.cluster.report.parts import Chart, NodeGroup, Table
from benchmark.cluster.report.shifting import shift_words
from benchmark.errors import InputError
from benchmark.records import NodeHistory

# Most runs of a node that are shown.
MOST_RUNS = 30
MOST_DAYS = 4
MOST_PROBES = 6


@dataclass(frozen=True)
class Since:
    """The run from which a node's figures changed."""

    node: str
    run_id: str
    shifts: Sequence[str]
    facts: Sequence[str]


@dataclass(frozen=True)
class Trend:
    """Charts of a group's earlier runs, and what shifted."""

    charts: Sequence[Chart]
    since: Sequence[Since]


def histories(run_dir: Path) -> dict[str, NodeHistory]:
    """Return the history of each node that has earlier runs like this one, whose result must be written already."""
    try:
        found = history_of_run(run_dir, MOST_RUNS)
    except InputError:
        return {}
    return {node: one for node, one in found.items() if len(one.points) > 1}


def trend(like: NodeGroup, known: Mapping[str, NodeHistory]) -> Trend | None:
    """Return the group's trend; None if none of its nodes has an earlier run.

    It shows the metric that ranks nodes, and the probes that shifted; without queries, at least the first probe.
    """
    nodes = [known[node.node] for node in like.nodes if node.node in known]
    units = {metric: unit for one in nodes for metric, unit in one.units.items()}
    shifted = {shift.metric for one in nodes for shift in one.shifts}
    metrics = ["qps" if like.ranked_by == "qps" else "ttft_ms.p50"] if like.queries else list(units)[:1]
    metrics += [metric for metric in units if metric in shifted and metric not in metrics][:MOST_PROBES]
    charts = [chart for metric in metrics if (chart := _chart(like, nodes, metric, units))]
    if not charts:
        return None
    since = [
        Since(
            one.node,
            at.run_id,
            [shift_words(one, shift) for shift in one.shifts if shift.run_id == at.run_id],
            at.facts,
        )
        for one in nodes
        for at in one.drift
    ]
    return Trend(charts, since)


def _chart(like: NodeGroup, nodes: Sequence[NodeHistory], metric: str, units: Mapping[str, str]) -> Chart | None:
    values = {
        one.node: {point.run_id: point.values[metric] for point in one.points if metric in point.values}
        for one in nodes
    }
    runs = sorted({run_id for each in values.values() for run_id in each})
    if len(runs) < 2:
        return None
    shifted = {one.node: [shift.run_id for shift in one.shifts if shift.metric == metric] for one in nodes}
    aspect = Aspect(metric, metric == "qps", own_unit=units.get(metric, ""))
    title = f"{aspect.label}{aspect.unit and f',{aspect.unit}'} in {len(runs)} runs with the same settings"
    words = f"{title}. The table below has the values."
    name = f"trend-{like.number}" if metric not in units else f"trend-{metric}-{like.number}"
    return Chart(
        title=title,
        note="Oldest on the left; a ring marks the first run at a new level",
        wide=_draw(f"{name}-wide", 860, like, values, runs, shifted, words),
        narrow=_draw(f"{name}-narrow", 340, like, values, runs, shifted, words),
        tables=[_table(like, values, runs, title)],
    )


def _draw(
    name: str,
    width: int,
    like: NodeGroup,
    values: Mapping[str, Mapping[str, float]],
    runs: Sequence[str],
    shifted: Mapping[str, Sequence[str]],
    words: str,
) -> Markup:
    with Canvas(name, width, 210, margins=Margins(left=48, right=40)) as canvas:
        (axes,) = canvas.axes
        place = {run_id: number for number, run_id in enumerate(runs)}
        for node in sorted(values, key=lambda each: each in like.marked):
            look, at = like.marked.get(node), [run_id for run_id in runs if run_id in values[node]]
            colour = COLOURS["crowd"] if look is None else SERIES[look.colour]
            axes.plot(
                [place[run_id] for run_id in at],
                [values[node][run_id] for run_id in at],
                color=colour,
                linestyle="-" if look is None else DASHES[look.dashes],
                linewidth=0.8 if look is None else 1.6,
                gid=series("trend", node),
            )
            for run_id in shifted[node]:
                axes.plot(
                    [place[run_id]], [values[node][run_id]], "o", color=colour, markerfacecolor="none", markersize=9,
                    gid=series("shift", node),
                )  # fmt: skip
        axes.set_xlim(-0.5, len(runs) - 0.5)
        step = max(1, -(-len(runs) // MOST_DAYS))
        shown = range(len(runs) - 1, -1, -step)
        axes.xaxis.set_major_locator(FixedLocator(list(shown)))
        axes.xaxis.set_major_formatter(lambda at, _: day(runs[int(at)]))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        axes.locator_params(axis="y", nbins=5)
        low, high = (edge(value for each in values.values() for value in each.values()) for edge in (min, max))
        room = max(high - low, 0.1 * high) * 0.15
        axes.set_ylim(low - room, high + room)
        return canvas.svg(words)


def _table(like: NodeGroup, values: Mapping[str, Mapping[str, float]], runs: Sequence[str], title: str) -> Table:
    columns = [node for node in like.marked if node in values]
    heads = ["run", *columns, *(["median"] if len(values) > 1 else [])]
    rows = []
    for run_id in runs:
        cells = [amount(values[node].get(run_id)) for node in columns]
        if len(values) > 1:
            cells.append(amount(median(each[run_id] for each in values.values() if run_id in each)))
        rows.append((run_id, *cells))
    return Table(title, heads, rows)
