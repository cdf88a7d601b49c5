"""The history as text for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from benchmark.cluster.diagnosis.aspects import ASPECTS, Aspect
from benchmark.cluster.history.aspects import probe_aspects
from benchmark.cluster.stored.states import INVALID, PARTIAL, VALID
from benchmark.records import History, HistoryPoint, NodeHistory, NodeRuns, Shift
from benchmark.text.columns import above, entry, left, wrap
from benchmark.text.figures import figure, moment, right
from benchmark.words import percent, plural

_BY_METRIC = {aspect.metric: aspect for aspect in ASPECTS}
# Most runs of a kind, the newest, that have a column.
LATEST = 6


def render_history(history: History) -> str:
    """Return the history in lines of at most `benchmark.text.WIDTH` columns."""
    lines = ["LLM inference benchmark: history", wrap(history.disclaimer)]
    for asked in history.runs:
        series = [one for one in history.nodes if one.node == asked.node]
        for one in series:
            lines += ["", *_node(one)]
        lines += ["", *_asked(asked, headed=bool(series))]
    if not history.runs:
        lines += ["", "There is no run."]
    if history.skipped:
        lines += ["", "Skipped", *(wrap(text, "  ", "    ") for text in history.skipped)]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")) + "\n"


def _node(node: NodeHistory) -> Iterator[str]:
    points = node.points
    span = " to ".join(dict.fromkeys(_date(point) for point in (points[0], points[-1])))
    yield wrap(f"{node.node}: {node.label}: {plural(len(points), 'run')}, {span}")
    latest = points[-LATEST:]
    days, times = zip(*(_when(point.created_at) for point in latest), strict=True)
    yield "  " + left("", 14) + right("", 7) + "".join(right(one, 7) for one in days)
    yield "  " + left("", 14) + right("median", 7) + "".join(right(one, 7) for one in times)
    for metric, aspect in _aspects(node).items():
        values = [point.values[metric] for point in points if metric in point.values]
        if values:
            cells = "".join(right(point.values.get(metric), 7) for point in latest)
            name = left(aspect.label + aspect.unit, 16)[:14].ljust(14)
            if metric in node.units:
                name = above(f"{aspect.label}{aspect.unit}", 14).replace("\n", "\n  ")
            yield "  " + name + right(statistics.median(values), 7) + cells
    shown = [f"{moment(point.created_at)}  {point.run_id}" + ("" if point.valid else ", invalid") for point in latest]
    yield entry("runs", "\n".join(shown), "  ")
    yield from shift_lines(node)


def _aspects(node: NodeHistory) -> dict[str, Aspect]:
    """Return the aspects of a node's values: the metrics, and the probes that it has."""
    return _BY_METRIC | {aspect.metric: aspect for aspect in probe_aspects(node.units)}


def _asked(node: NodeRuns, headed: bool) -> Iterator[str]:
    """Yield how many of a node's newest runs failed, where, and each of these; or a note that none did."""
    newest = len(node.newest)
    of = f"the last {newest} runs" if newest > 1 else "its only run"
    words = f"no failure in {of}"
    if node.failed:
        words = f"failed {node.failed} of {of}" if newest > 1 else "its only run failed"
    if node.failed_in:
        each = [stage if len(node.failed_in) == 1 else f"{stage} ({count})" for stage, count in node.failed_in.items()]
        words += f", in {', '.join(each)}"
    if stopped := sum(run.state == PARTIAL for run in node.newest):
        words += f"; {stopped} more {'was' if stopped == 1 else 'were'} interrupted"
    yield wrap(f"{node.node}: {words}" if headed else f"{node.node}: not counted in any run; {words}")
    for run in node.newest:
        if run.state not in (VALID, INVALID):
            yield entry(run.state, f"{moment(run.created_at)}  {run.run_id}, {run.profile}\n{run.reason}", "  ")


def _count(number: int) -> str:
    return f"{number} run" + ("" if number == 1 else "s")


def _date(point: HistoryPoint) -> str:
    """Return a run's day, or else its id, which begins with the day."""
    try:
        return f"{datetime.fromisoformat(point.created_at).astimezone(timezone.utc):%Y-%m-%d}"
    except ValueError:
        return day(point.run_id)


def _when(created_at: str) -> tuple[str, str]:
    """Return the day and the time of day above a column; dashes if unknown."""
    try:
        at = datetime.fromisoformat(created_at).astimezone(timezone.utc)
    except ValueError:
        return "-", "-"
    return f"{at:%m-%d}", f"{at:%H:%M}"


def shift_lines(node: NodeHistory) -> Iterator[str]:
    """Yield what shifted, run by run, and what drifted then."""
    for at in node.drift:
        shifts = [shift for shift in node.shifts if shift.run_id == at.run_id]
        yield entry("since", "\n".join([at.run_id, *_words(node, shifts, at.facts)]), "  ")


def _words(node: NodeHistory, shifts: Iterable[Shift], facts: Iterable[str]) -> Iterator[str]:
    aspects = _aspects(node)
    for shift in shifts:
        aspect = aspects[shift.metric]
        yield (
            f"{aspect.label} {percent(shift.change, 0)}, {figure(shift.before)} to {figure(shift.after)}{aspect.unit}: "
            f"{'worse' if shift.worse else 'better'}"
            + (f"; {shift.runs} run so far, one more will tell" if shift.tentative and shift.runs == 1 else "")
            + (f"; {shift.runs} runs so far" if shift.tentative and shift.runs > 1 else "")
        )
    known = list(facts)
    yield f"what drifted: {'; '.join(known)}" if known else "no recorded fact drifted"


def day(run_id: str) -> str:
    """Return a run's day, or its id if that does not begin with one."""
    try:
        return f"{datetime.strptime(run_id[:8], '%Y%m%d').replace(tzinfo=timezone.utc):%Y-%m-%d}"
    except ValueError:
        return run_id
