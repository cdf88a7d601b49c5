"""The curves of a sweep in the summaries: a table for each group, and a line for each node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cluster.names import some
from benchmark.records import ClusterResult, Crossing, Curve, CurvePoint, Curves
from benchmark.text.figures import figure
from benchmark.verdict import label, unit

# Most nodes with a line of their own; the JSON has all.
MOST_NODES = 20
# Most uncounted nodes with a table.
MOST_ALONE = 5


@dataclass(frozen=True)
class CurveTable:
    """One curve as a table. `notes` explain its marks; `lines` give the result of the curve and of each of its nodes.

    `per`: what its rates refer to, a GPU or a replica.
    """

    title: str
    head: str
    per: str
    rows: tuple[tuple[str, CurvePoint], ...]
    notes: tuple[str, ...]
    lines: list[tuple[str, str]]


def sweep_words(result: ClusterResult) -> str:
    """Return the knee of each group's curve, and which step all other figures are of; empty without a sweep."""
    if result.sweep is None:
        return ""
    if result.sweep.chosen is None:
        return "no node is counted: only the curves are shown"
    knees = [(group.label, knee_of(result, number)) for number, group in enumerate(result.groups)]
    heads = [f"{label}: {words}" if len(knees) > 1 else words for label, words in knees if words]
    step = (
        f"{at_step(result.sweep, result.sweep.chosen)}: all figures outside the curves are of this step, the lowest "
        "load with nearly the highest tokens/s among the steps that all nodes measured"
    )
    return "\n".join([*heads[:MOST_NODES], step])


def knee_of(result: ClusterResult, group: int) -> str:
    """Return where a group's curve bends and its highest tokens/s; empty if the group has no curve."""
    sweep = result.sweep
    curve = next((one for one in sweep.curves if one.kind == "group" and one.group == group), None) if sweep else None
    if sweep is None or curve is None:
        return ""
    most = max((point.tokens_per_s for point in curve.points if point.tokens_per_s is not None), default=None)
    rate = f"{figure(most)} tokens/s"
    if curve.knee is not None:
        return f"knee at {at_step(sweep, curve.knee)}, {rate} at most"
    if sweep.by == "concurrency" and len(curve.points) > 1:
        return f"no knee up to {at_step(sweep, curve.points[-1].step)}, {rate} at most"
    return f"{rate} at most" + (f", nearly reached with {at_step(sweep, curve.enough)}" if curve.enough else "")


def curve_tables(result: ClusterResult) -> list[CurveTable]:
    """Return a table for the curve of each group and of each uncounted node."""
    sweep = result.sweep
    if sweep is None:
        return []
    groups = [one for one in sweep.curves if one.kind == "group"]
    alone = [one for one in sweep.curves if one.group is None]
    tables = [_table(sweep, one) for one in (*groups, *alone[:MOST_ALONE])]
    if more := alone[MOST_ALONE:]:
        tables[-1].lines.append(("Also", f"{some([one.of for one in more])}: their curves are in the JSON"))
    return tables


def _table(sweep: Curves, curve: Curve) -> CurveTable:
    nodes = _nodes(sweep, curve)
    what = f"{curve.of}: the curve of its nodes together" if len(nodes) > 1 else f"{curve.of}: the curve"
    lines = [*lines_of(sweep, curve), *_spent(sweep, curve)]
    shown = nodes[:MOST_NODES]
    lines += [(one.of, _node(sweep, one)) for one in shown]
    if len(nodes) > MOST_NODES:
        lines.append(("more", f"{some([one.of for one in nodes[MOST_NODES:]])}: in the JSON"))
    return CurveTable(
        what,
        "in flight" if sweep.by == "concurrency" else "of burst",
        sweep.per,
        tuple(zip(marked_steps(sweep, curve), curve.points, strict=True)),
        tuple(notes_of(sweep, curve)),
        lines,
    )


def _spent(sweep: Curves, curve: Curve) -> list[tuple[str, str]]:
    """Return what tokens cost at each step, in money and in energy, where known."""
    costs = [(point, point.cost) for point in curve.points if point.cost]
    found: list[tuple[str, str]] = []
    for what in ("output", "input") if costs else ():
        each = [(point, getattr(cost, f"per_million_{what}_tokens")) for point, cost in costs]
        if all(value is None for _, value in each):
            continue
        words = f"{costs[0][1].currency} per million {what} tokens: "
        found.append(("Cost", words + _at_each(sweep, each)))
    energies = [(point, point.tokens_per_joule) for point in curve.points if point.tokens_per_joule is not None]
    return [*found, *([("Energy", "output tokens per joule: " + _at_each(sweep, energies))] if energies else [])]


def _at_each(sweep: Curves, each: Sequence[tuple[CurvePoint, float | None]]) -> str:
    steps = [f"{point.step:g}" if sweep.by == "concurrency" else f"{point.step:.0%}" for point, _ in each]
    first = f"{steps[0]} in flight" if sweep.by == "concurrency" else f"{steps[0]} of a burst's rate"
    return ", ".join(f"{figure(value)} with {step}" for step, (_, value) in zip([first, *steps[1:]], each, strict=True))


def _nodes(sweep: Curves, curve: Curve) -> list[Curve]:
    if curve.kind == "node":
        return []
    return [one for one in sweep.curves if one.kind == "node" and one.group == curve.group]


def notes_of(sweep: Curves, curve: Curve) -> list[str]:
    """Return the meaning of the marks that a curve's steps have."""
    notes = [f"+ on the Pareto front: no other step has more tokens/s per {sweep.per} and per user"]
    if any(not point.confident for point in curve.points):
        notes.append("* fewer than 662 samples: its P99 is without confidence")
    if any(not point.valid for point in curve.points):
        notes.append("! not valid: a check failed in this step")
    if len({point.nodes for point in curve.points}) > 1:
        notes.append("~ not measured by all nodes: the others had already ended")
    return notes


def lines_of(sweep: Curves, curve: Curve) -> list[tuple[str, str]]:
    """Return the results of a curve: its knee, where each limit is crossed, why it ended."""
    lines = [("Knee", _knee(sweep, curve)), *(("Limit", _crossed(sweep, one)) for one in curve.crossings)]
    return [*lines, *([("Ended", curve.ended)] if curve.ended else [])]


def marked_steps(sweep: Curves, curve: Curve) -> list[str]:
    """Return the steps of a curve, each with its marks (see `notes_of`)."""
    most = max((point.nodes for point in curve.points), default=0)

    def marks(point: CurvePoint) -> str:
        few = "~" * (point.nodes < most)
        return "+" * point.on_front + "*" * (not point.confident) + "!" * (not point.valid) + few

    steps = (f"{point.step:g}" if sweep.by == "concurrency" else f"{point.step:.0%}" for point in curve.points)
    return [step + marks(point) for step, point in zip(steps, curve.points, strict=True)]


def at_step(sweep: Curves, step: float) -> str:
    """Return a load in words: "16 in flight on each GPU"."""
    return f"{step:.3g} in flight on each {sweep.per}" if sweep.by == "concurrency" else f"{step:.0%} of a burst's rate"


def _knee(sweep: Curves, curve: Curve) -> str:
    most = f"{figure(curve.most_tokens_per_s_per_gpu)} tokens/s per {sweep.per} at most"
    if len(curve.points) == 1:
        return f"not known: only one step was measured, with {most.removesuffix(' at most')}"
    if curve.knee is None and sweep.by == "concurrency":
        return f"not reached: tokens/s were still rising; {most}"
    if curve.enough is not None:
        most += f", nearly reached with {at_step(sweep, curve.enough)}"
    if curve.knee is None:
        return most
    return f"queries wait for each other from {at_step(sweep, curve.knee)} on; {most}"


def _node(sweep: Curves, curve: Curve) -> str:
    last = curve.points[-1].step
    knee = f"knee at {curve.knee:.3g}, " if curve.knee is not None else ""
    most = f"{knee}{figure(curve.most_tokens_per_s_per_gpu)} tokens/s per {sweep.per} at most"
    return f"{most}, measured up to {at_step(sweep, last)}. {curve.ended}".rstrip(" .") + "."


def _crossed(sweep: Curves, one: Crossing) -> str:
    what = f"{label(one.metric)} {figure(one.limit)}{unit(one.metric)}"
    if one.beyond is None:
        return f"{what}: met at every step" if one.within is not None else f"{what}: undefined"
    if one.within is None:
        return f"{what}: exceeded at the first step"
    return (
        f"{what}: met up to {at_step(sweep, one.within)}, exceeded at {one.beyond:g}"
        if sweep.by == "concurrency"
        else f"{what}: met up to {one.within:.0%}, exceeded at {one.beyond:.0%}"
    ) + (f" (crossed near {one.at:.3g})" if one.at is not None and sweep.by == "concurrency" else "")
