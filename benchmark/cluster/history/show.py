"""The history as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from benchmark.cluster.diagnosis.aspects import ASPECTS
from benchmark.records import History, NodeHistory, Shift
from benchmark.text import entry, figure, left, right, wrap
from benchmark.words import percent, plural

_BY_METRIC = {aspect.metric: aspect for aspect in ASPECTS}
# The latest values that a line shows.
LATEST = 6


def render_history(history: History) -> str:
    """Return the history in lines of at most `benchmark.text.WIDTH` columns."""
    lines = ["LLM inference benchmark: history", wrap(history.disclaimer)]
    for node in history.nodes:
        lines += ["", *_node(node)]
    if not history.nodes:
        lines += ["", "No run with a node that counts."]
    if history.skipped:
        lines += ["", "Skipped", *(wrap(text, "  ", "    ") for text in history.skipped)]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")) + "\n"


def _node(node: NodeHistory) -> Iterator[str]:
    points = node.points
    runs = plural(len(points), "run")
    span = day(points[0].run_id)
    if len(points) > 1:
        span += f" to {day(points[-1].run_id)}"
    yield wrap(f"{node.node}: {node.label}: {runs}, {span}")
    yield "  " + left("", 14) + right("median", 7) + "  latest " + f"{LATEST} runs"
    for metric, aspect in _BY_METRIC.items():
        values = [point.values[metric] for point in points if metric in point.values]
        if values:
            latest = "".join(right(value, 7) for value in values[-LATEST:])
            middle = sorted(values)[len(values) // 2]
            yield "  " + left(aspect.label + aspect.unit, 16)[:14].ljust(14) + right(middle, 7) + latest
    yield from shift_lines(node)


def shift_lines(node: NodeHistory) -> Iterator[str]:
    """Yield what shifted, run by run, and what drifted there."""
    for at in node.drift:
        shifts = [shift for shift in node.shifts if shift.run_id == at.run_id]
        yield entry("since", "\n".join([at.run_id, *_words(shifts, at.facts)]), "  ")


def _words(shifts: Iterable[Shift], facts: Iterable[str]) -> Iterator[str]:
    for shift in shifts:
        aspect = _BY_METRIC[shift.metric]
        yield (
            f"{aspect.label} {percent(shift.change, 0)}, {figure(shift.before)} to {figure(shift.after)}{aspect.unit}: "
            f"{'worse' if shift.worse else 'better'}"
            + (f"; {shift.runs} run so far, one more will tell" if shift.tentative and shift.runs == 1 else "")
            + (f"; {shift.runs} runs so far" if shift.tentative and shift.runs > 1 else "")
        )
    known = list(facts)
    yield f"what drifted: {'; '.join(known)}" if known else "nothing that is recorded drifted"


def day(run_id: str) -> str:
    """Return a run's day, or its id where that does not begin with one."""
    try:
        return f"{datetime.strptime(run_id[:8], '%Y%m%d').replace(tzinfo=timezone.utc):%Y-%m-%d}"
    except ValueError:
        return run_id
