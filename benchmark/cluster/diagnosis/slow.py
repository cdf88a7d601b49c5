"""Which of like nodes is slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmark.cluster.diagnosis.aspects import Aspect, aspects_of, rate_of, reading
from benchmark.cluster.diagnosis.spread import Deviation, Reading, deviations
from benchmark.cluster.results.load import LoadedNode

# How often a run of nodes that are all alike may name one of them: by the most telling metric, by all others together.
ALPHA_FIRST = 0.006
ALPHA_OTHERS = 0.004
# Earlier runs of a node before they are a history; the latest count.
LEAST_EARLIER = 3
MOST_EARLIER = 20

Earlier = Callable[[str], Sequence[Mapping[str, float]]]
"""A node's values in its earlier runs with like settings, metric -> value, oldest first."""


@dataclass(frozen=True)
class Shift:
    """One metric in which a node is worse than it should be."""

    aspect: Aspect
    value: float
    deviation: Deviation


@dataclass(frozen=True)
class Slow:
    """A slow node, in what it is slow (the most telling first), and what it was held against."""

    node: LoadedNode
    shifts: tuple[Shift, ...]
    against: str


def slow_nodes(group: Sequence[LoadedNode], earlier: Earlier) -> list[Slow]:
    """Return the slow nodes among like ones, the worst first.

    From three nodes on each is held against the median of the others; two against their own earlier runs, and where
    they have none against each other; one against its own earlier runs.
    """
    found: list[Slow] = []
    for nodes in _same_rate(group):
        by_history = [slow for node in nodes if (slow := _against_history(node, earlier))] if len(nodes) < 3 else []
        found += by_history or (_against_others(nodes, earlier) if len(nodes) > 1 else [])
    return sorted(found, key=lambda slow: -max(shift.deviation.badness for shift in slow.shifts))


def _same_rate(group: Sequence[LoadedNode]) -> list[list[LoadedNode]]:
    rates: dict[str, list[LoadedNode]] = {}
    for node in group:
        if node.result is not None:
            rates.setdefault(rate_of(node.result), []).append(node)
    return list(rates.values())


def _aspects(nodes: Sequence[LoadedNode]) -> Iterator[tuple[Aspect, float]]:
    """Yield what to compare like nodes in, each with its share of the false alarms."""
    result = nodes[0].result
    aspects = aspects_of(result) if result else ()
    for number, aspect in enumerate(aspects):
        yield aspect, ALPHA_OTHERS / (len(aspects) - 1) if number else ALPHA_FIRST


def _against_others(nodes: Sequence[LoadedNode], earlier: Earlier) -> list[Slow]:
    shifts: dict[str, list[Shift]] = {}
    for aspect, alpha in _aspects(nodes):
        known = [(node.node, one) for node in nodes if (one := reading(node, aspect)) is not None]
        for name, value, found in _off(known, aspect, alpha):
            shifts.setdefault(name, []).append(Shift(aspect, value, found))
    return [Slow(node, tuple(shifts[node.node]), _peers(node, nodes, earlier)) for node in nodes if node.node in shifts]


def _off(known: Sequence[tuple[str, Reading]], aspect: Aspect, alpha: float) -> Iterator[tuple[str, float, Deviation]]:
    """Yield name, value and deviation of those that are off the others."""
    if len(known) < 2:
        return
    found = deviations(
        [one for _, one in known], higher_is_better=aspect.higher_is_better, alpha=alpha, assumed=aspect.assumed
    )
    yield from ((name, one.value, far) for (name, one), far in zip(known, found, strict=True) if far.off)


def _peers(node: LoadedNode, nodes: Sequence[LoadedNode], earlier: Earlier) -> str:
    if len(nodes) > 2:
        return f"the median of {len(nodes) - 1} like nodes"
    other = next(peer.node for peer in nodes if peer is not node)
    if all(len(earlier(peer.node)) >= LEAST_EARLIER for peer in nodes):
        return f"{other}, the only like node; neither differs from its own earlier runs"
    return f"{other}, the only like node: which of the two is off cannot be known without history"


def _against_history(node: LoadedNode, earlier: Earlier) -> Slow | None:
    runs = earlier(node.node)[-MOST_EARLIER:]
    if len(runs) < LEAST_EARLIER:
        return None
    shifts = []
    for aspect, alpha in _aspects([node]):
        now = reading(node, aspect)
        before = [Reading(run[aspect.metric]) for run in runs if run.get(aspect.metric, 0) > 0]
        if now is None or len(before) < LEAST_EARLIER:
            continue
        # Only the last is looked at: its share of the false alarms of so many.
        found = deviations(
            [*before, now],
            higher_is_better=aspect.higher_is_better,
            alpha=alpha * (len(before) + 1),
            assumed=aspect.assumed,
        )[-1]
        if found.off:
            shifts.append(Shift(aspect, now.value, found))
    return Slow(node, tuple(shifts), f"the median of its {len(runs)} earlier runs") if shifts else None
