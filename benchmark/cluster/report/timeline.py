"""The run over time: queries in flight, throughput and GPU telemetry on one time axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup
from matplotlib.axes import Axes

from benchmark.cluster.report.amounts import amount, median, tick
from benchmark.cluster.report.drawing import COLOURS, DASHES, SERIES, Canvas, Margins, series
from benchmark.cluster.report.parts import Chart, NodeGroup, Table
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.results.time_series import TimeSeries
from benchmark.metrics import NS_PER_S

CROWD = "other nodes"
FEWEST_BINS = 10


@dataclass(frozen=True)
class Line:
    """Values over time; the mean (of a crowd: of the median node) lies between `low` and `high`."""

    name: str
    times_s: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Quantity:
    """What a panel shows: its heading, and the (lowest, mean, highest) of a bin."""

    name: str
    title: str
    unit: str
    from_zero: bool
    value: Callable[[TimeSeries, int], tuple[float, float, float] | None]


def _in_flight(series: TimeSeries, number: int) -> tuple[float, float, float] | None:
    mean = series.in_flight.mean(number)
    # The lowest value says little: between two queries of a closed loop none is in flight for an instant.
    return None if mean is None else (mean, mean, series.in_flight.high[number])


def _tokens(series: TimeSeries, number: int) -> tuple[float, float, float] | None:
    rate = series.tokens_per_s(number)
    return rate, rate, rate


def _watched(name: str, series: TimeSeries, number: int) -> tuple[float, float, float] | None:
    seen = series.watched.get(name)
    mean = seen.mean(number) if seen else None
    return None if seen is None or mean is None else (seen.low[number], mean, seen.high[number])


QUANTITIES = (
    Quantity("in_flight", "Queries in flight", "", True, _in_flight),
    Quantity("tokens_per_s", "Output tokens", "tokens/s", True, _tokens),
    Quantity("sm_clock_mhz", "GPU clock", "MHz", False, partial(_watched, "sm_clock_mhz")),
    Quantity("power_w", "Power of a GPU", "W", True, partial(_watched, "power_w")),
    Quantity("temperature_c", "Temperature of a GPU", "\N{DEGREE SIGN}C", False, partial(_watched, "temperature_c")),
    Quantity("cpu_percent", "CPU load of all cores", "%", True, partial(_watched, "cpu_percent")),
)


def timeline(like: NodeGroup) -> Chart | None:
    """Return the group's timeline; None if none of its queries completed."""
    by_node = aligned(like.nodes)
    if not by_node:
        return None
    shown = [(quantity, lines) for quantity in QUANTITIES if (lines := lines_of(quantity, like, by_node))]
    width_s = next(iter(by_node.values()))[0].width_ns / NS_PER_S
    note = f"Each point covers {amount(width_s)} s"
    if like.crowd:
        note += "; grey: median, lowest and highest of the other nodes"
    if any(quantity.name not in ("in_flight", "tokens_per_s") for quantity, _ in shown):
        note += "; shaded: lowest and highest within a point"
    label = (
        f"{', '.join(q.title for q, _ in shown)} of {len(by_node)} nodes over time. The tables below have the values."
    )
    return Chart(
        title="",
        note=note,
        wide=_draw(f"timeline-{like.number}-wide", 860, 96, like, shown, label),
        narrow=_draw(f"timeline-{like.number}-narrow", 340, 104, like, shown, label),
        tables=[_table(quantity, lines) for quantity, lines in shown],
    )


def aligned(nodes: Sequence[LoadedNode]) -> dict[str, tuple[TimeSeries, int]]:
    """Return each node's series in bins of one width, and the number of its first bin: 0 is where the first node began.

    Times are by the controller's clock if every node's offset to it is known, else by the nodes' own, as in the
    summary's overlap.
    """
    begun = [(n, n.time_series, n.result.window) for n in nodes if n.time_series and n.result and n.result.window]
    if not begun:
        return {}
    known = all(node.clock for node, _, _ in begun)
    starts = {
        node.node: window.started_unix_ns - (node.clock.offset_ns if known and node.clock else 0)
        for node, _, window in begun
    }
    first, width_ns = min(starts.values()), max(_width_ns(series) for _, series, _ in begun)
    return {
        node.node: (series.merged(width_ns), round((starts[node.node] - first) / width_ns)) for node, series, _ in begun
    }


def _width_ns(series: TimeSeries) -> int:
    """Return a width at which nearly every bin has a host sample: these are rarer than queries."""
    while series.bins > FEWEST_BINS and any(
        sum(weight > 0 for weight in seen.weight) < 0.9 * series.bins for seen in series.watched.values()
    ):
        series = series.merged(2 * series.width_ns)
    return series.width_ns


def lines_of(quantity: Quantity, like: NodeGroup, by_node: dict[str, tuple[TimeSeries, int]]) -> list[Line]:
    """Return a line for the nodes shown together, and one for each marked node."""
    lines = []
    crowd = [node.node for node in like.crowd if node.node in by_node]
    if crowd and (line := _crowd(quantity, [by_node[node] for node in crowd])):
        lines.append(line)
    for node in like.marked:
        if node in by_node and (line := _line(quantity, node, *by_node[node])):
            lines.append(line)
    return lines


def _line(quantity: Quantity, name: str, series: TimeSeries, shift: int) -> Line | None:
    points = [(n + shift, found) for n in range(series.bins) if (found := quantity.value(series, n))]
    return _joined(name, series.width_ns, points) if points else None


def _crowd(quantity: Quantity, by_node: Iterable[tuple[TimeSeries, int]]) -> Line | None:
    at: dict[int, list[tuple[float, float, float]]] = {}
    width_ns = 0
    for one, shift in by_node:
        width_ns = one.width_ns
        for number in range(one.bins):
            if found := quantity.value(one, number):
                at.setdefault(number + shift, []).append(found)
    points = [
        (number, (min(f[0] for f in found), median(f[1] for f in found) or 0.0, max(f[2] for f in found)))
        for number, found in sorted(at.items())
    ]
    return _joined(CROWD, width_ns, points) if points else None


def _joined(name: str, width_ns: int, points: Sequence[tuple[int, tuple[float, float, float]]]) -> Line:
    return Line(
        name=name,
        times_s=[(number + 0.5) * width_ns / NS_PER_S for number, _ in points],
        middle=[middle for _, (_, middle, _) in points],
        low=[low for _, (low, _, _) in points],
        high=[high for _, (_, _, high) in points],
    )


def _draw(
    name: str, width: int, row: int, like: NodeGroup, shown: Sequence[tuple[Quantity, list[Line]]], label: str
) -> Markup:
    margins = Margins(left=46, right=10, top=24, bottom=36, between=0.5)
    with Canvas(name, width, 60 + row * len(shown), len(shown), margins) as canvas:
        for axes, (quantity, lines) in zip(canvas.axes, shown, strict=True):
            for line in lines:
                look = like.marked.get(line.name)
                colour = COLOURS["crowd"] if look is None else SERIES[look.colour]
                if line.low != line.high:
                    axes.fill_between(
                        line.times_s, line.low, line.high, color=colour, alpha=0.25, linewidth=0,
                        gid=series(quantity.name, line.name, "range"),
                    )  # fmt: skip
                axes.plot(
                    line.times_s,
                    line.middle,
                    color=colour,
                    linestyle="-" if look is None else DASHES[look.dashes],
                    linewidth=1.5,
                    gid=series(quantity.name, line.name),
                )
            title = quantity.title + (f", {quantity.unit}" if quantity.unit else "")
            axes.text(0, 1.07, title, transform=axes.transAxes, ha="left", va="bottom", color=COLOURS["ink"])
            _scale(axes, quantity, lines)
        last = canvas.axes[-1]
        last.set_xlim(0, max(line.times_s[-1] for _, lines in shown for line in lines) * 1.01)
        last.set_xlabel("seconds since the first node began to measure")
        return canvas.svg(label)


def _scale(axes: Axes, quantity: Quantity, lines: Sequence[Line]) -> None:
    low = 0.0 if quantity.from_zero else min(min(line.low) for line in lines)
    high = max(max(line.high) for line in lines)
    # Keeps a clock that moves by one step from looking like a mountain.
    room = max(high - low, 0.05 * abs(high), 1e-9) * 0.1
    axes.set_ylim(low if quantity.from_zero else low - room, high + room)
    axes.locator_params(axis="y", nbins=3)
    axes.yaxis.set_major_formatter(lambda value, _: tick(value))


def _table(quantity: Quantity, lines: Sequence[Line]) -> Table:
    numbers = sorted({time for line in lines for time in line.times_s})
    heads, columns = ["s"], []
    for line in lines:
        at = dict(zip(line.times_s, zip(line.low, line.middle, line.high, strict=True), strict=True))
        parts = [
            part for part, values in enumerate((line.low, line.middle, line.high)) if part == 1 or values != line.middle
        ]
        middle = "median" if line.name == CROWD else "mean"
        for part in parts:
            heads.append(f"{line.name} {('lowest', middle, 'highest')[part]}" if len(parts) > 1 else line.name)
            columns.append([amount(at[time][part]) if time in at else "-" for time in numbers])
    rows = [(amount(time), *(column[n] for column in columns)) for n, time in enumerate(numbers)]
    return Table(quantity.title + (f", {quantity.unit}" if quantity.unit else ""), heads, rows)
