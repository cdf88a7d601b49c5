"""Every node over time: a small line for each figure of its speed, with a ring where it shifted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cluster.diagnosis.aspects import aspects_for
from benchmark.cluster.history import recent_histories
from benchmark.cluster.history.aspects import aspect_in
from benchmark.cluster.report.amounts import amount
from benchmark.cluster.report.shifting import shift_words
from benchmark.cluster.stored.read import StoredNode, StoredRun
from benchmark.records import HistoryPoint, NodeHistory
from benchmark.words import plural

# Most runs of one kind of a node, the newest, that are drawn and searched for shifts.
MOST_POINTS = 60
# Most other figures, which shifted, besides the deciding one.
MOST_SHIFTED = 3
WIDTH, HEIGHT, EDGE = 160.0, 30.0, 6.0
# A circle around a point, as the rest of a path.
CIRCLE = "m -4 0 a 4 4 0 1 0 8 0 a 4 4 0 1 0 -8 0"


@dataclass(frozen=True)
class Ring:
    """The first run at a new level; `path`: the ring around its point."""

    run_id: str
    worse: bool
    words: str
    path: str


@dataclass(frozen=True)
class Line:
    """One figure of one node over its runs of one kind. `axes`: the range of its pixels, as JSON; `newest`: its value.

    `path`: the line through all runs; `end`: the newest run's point, for a single run the only mark.
    """

    node: str
    profile: str
    label: str
    figure: str
    metric: str
    newest: str
    last_run_id: str
    words: str
    count: int
    path: str
    end: str
    axes: str
    rings: tuple[Ring, ...]


def node_lines(results: Path, runs: Sequence[StoredRun]) -> list[Line]:
    """Return the lines of all nodes, by node; for each node, the most recently measured kind first."""
    lines: dict[str, list[Line]] = {}
    for newest, history in recent_histories(results, runs, MOST_POINTS):
        lines.setdefault(history.node, []).extend(_lines(newest, history))
    return [line for each in lines.values() for line in sorted(each, key=lambda one: one.last_run_id, reverse=True)]


def _lines(newest: StoredNode, history: NodeHistory) -> Iterator[Line]:
    known = [aspect.metric for aspect in aspects_for(newest.rate)] + list(history.units)
    measured = {metric for point in history.points for metric in point.values}
    deciding = [metric for metric in known if metric in measured][:1]
    shifted = dict.fromkeys(shift.metric for shift in history.shifts if shift.metric not in deciding)
    for metric in (*deciding, *list(shifted)[:MOST_SHIFTED]):
        yield _line(newest, history, metric)


def _line(newest: StoredNode, history: NodeHistory, metric: str) -> Line:
    points = [point for point in history.points if metric in point.values]
    values = [point.values[metric] for point in points]
    low, high = min(values), max(values)
    room = max(high - low, 0.1 * high) * 0.15
    low, high = low - room, high + room
    across = (WIDTH - 2 * EDGE) / max(1, len(values) - 1)
    at = [
        (f"{EDGE + across * place:.1f}", f"{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - low) / (high - low):.1f}")
        for place, value in enumerate(values)
    ]
    aspect = aspect_in(history, metric)
    rings = tuple(_rings(history, metric, points, at))
    span = f"{amount(values[0])} to {amount(values[-1])}{aspect.unit}" if len(values) > 1 else amount(values[0])
    axes = {
        "left": EDGE,
        "right": WIDTH - EDGE,
        "top": EDGE,
        "bottom": HEIGHT - EDGE,
        "x": [0, max(1, len(values) - 1)],
        "y": [low, high],
        "scale": "linear",
    }
    return Line(
        node=history.node,
        profile=newest.kind[0],
        label=history.label,
        figure=f"{aspect.label}{aspect.unit and f',{aspect.unit}'}",
        metric=metric,
        newest=amount(values[-1]),
        last_run_id=points[-1].run_id,
        words=f"{aspect.label} of {history.node} in {plural(len(values), 'run')}: {span}",
        count=len(values),
        path=" ".join(f"{'L' if place else 'M'} {x} {y}" for place, (x, y) in enumerate(at)),
        end=f"M {' '.join(at[-1])} h 0",
        axes=json.dumps([axes], separators=(",", ":")),
        rings=rings,
    )


def _rings(
    history: NodeHistory, metric: str, points: Sequence[HistoryPoint], at: Sequence[tuple[str, str]]
) -> Iterator[Ring]:
    place = {point.run_id: number for number, point in enumerate(points)}
    for shift in history.shifts:
        if shift.metric == metric and shift.run_id in place:
            x, y = at[place[shift.run_id]]
            yield Ring(shift.run_id, shift.worse, shift_words(history, shift), f"M {x} {y} {CIRCLE}")
