"""Which of several like nodes is slow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from benchmark.cluster.diagnosis import curves, probe_figures
from benchmark.cluster.diagnosis.aspects import Aspect, aspects_of, off, rate_of, reading
from benchmark.cluster.diagnosis.spread import Deviation, Reading, deviations
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.sweep import steps_of
from benchmark.probed import in_order

# How often a run of healthy nodes may name one of them: by the most telling metric, and by all other metrics of the
# queries together. Probes have their own share.
ALPHA_FIRST = 0.006
ALPHA_OTHERS = 0.004
# Earlier runs of a node that make a history, and how many of the latest are used.
LEAST_EARLIER = 3
MOST_EARLIER = 20

Earlier = Callable[[str], Sequence[Mapping[str, float]]]
"""A node's values in its earlier runs with the same settings, metric -> value, oldest first."""

Apart = Mapping[str, Collection[int]]
"""Node -> its GPUs that are slow on their own: the node is then judged by its other GPUs."""
NONE_APART: Apart = MappingProxyType({})


@dataclass(frozen=True)
class Shift:
    """One metric in which a node is worse than it should be."""

    aspect: Aspect
    value: float
    deviation: Deviation


@dataclass(frozen=True)
class Slow:
    """A slow node, the metrics in which it is slow (the most telling first), and what it was compared with."""

    node: LoadedNode
    shifts: tuple[Shift, ...]
    against: str


def slow_nodes(group: Sequence[LoadedNode], earlier: Earlier, apart: Apart = NONE_APART) -> list[Slow]:
    """Return the slow nodes among like ones, worst first.

    Three or more nodes are each compared with the median of the others; two with their own earlier runs or, without
    any, with each other; one with its own earlier runs.
    """
    found: list[Slow] = []
    for nodes in _same_rate(group):
        by_history = []
        if len(nodes) < 3:
            by_history = [slow for node in nodes if (slow := _against_history(node, earlier, apart))]
        found += by_history or (_against_others(nodes, earlier, apart) if len(nodes) > 1 else [])
    return sorted(found, key=lambda slow: -max(shift.deviation.badness for shift in slow.shifts))


def _same_rate(group: Sequence[LoadedNode]) -> list[list[LoadedNode]]:
    rates: dict[str, list[LoadedNode]] = {}
    for node in group:
        if node.result is not None:
            rates.setdefault(rate_of(node.result), []).append(node)
    return list(rates.values())


def _aspects(nodes: Sequence[LoadedNode], apart: Apart) -> Iterator[tuple[Aspect, float, dict[str, Reading]]]:
    """Yield the metrics in which to compare like nodes, each with its share of false alarms and the nodes' values."""
    result, swept = nodes[0].result, all(map(steps_of, nodes))
    aspects = curves.ASPECTS if swept else aspects_of(result) if result else ()
    for number, aspect in enumerate(aspects):
        if swept:
            known = curves.curve_readings(nodes, aspect)
        else:
            known = {node.node: one for node in nodes if (one := reading(node, aspect)) is not None}
        yield aspect, ALPHA_OTHERS / (len(aspects) - 1) if number else ALPHA_FIRST, known
    probed = {node.node: probe_figures.probed(node) for node in probe_figures.comparable(nodes)}
    figures, shared = in_order(probed.values()), any(map(probe_figures.is_shared, nodes))
    for figure in figures:
        known = {
            name: Reading(value)
            for name, each in probed.items()
            if figure.name in each
            and (value := probe_figures.middle(each[figure.name], apart.get(name, ()))) is not None
        }
        yield probe_figures.aspect_of(figure, shared), probe_figures.ALPHA / len(figures), known


def _against_others(nodes: Sequence[LoadedNode], earlier: Earlier, apart: Apart) -> list[Slow]:
    shifts: dict[str, list[Shift]] = {}
    for aspect, alpha, known in _aspects(nodes, apart):
        for name, found in off(known, aspect, alpha).items():
            shifts.setdefault(name, []).append(Shift(aspect, known[name].value, found))
    return [Slow(node, tuple(shifts[node.node]), _peers(node, nodes, earlier)) for node in nodes if node.node in shifts]


def _peers(node: LoadedNode, nodes: Sequence[LoadedNode], earlier: Earlier) -> str:
    if len(nodes) > 2:
        return f"the median of {len(nodes) - 1} like nodes"
    other = next(peer.node for peer in nodes if peer is not node)
    if all(len(earlier(peer.node)) >= LEAST_EARLIER for peer in nodes):
        return f"{other}, the only like node; neither differs from its own earlier runs"
    return f"{other}, the only like node: which of the two is off cannot be known without history"


def _against_history(node: LoadedNode, earlier: Earlier, apart: Apart) -> Slow | None:
    runs = earlier(node.node)[-MOST_EARLIER:]
    if len(runs) < LEAST_EARLIER:
        return None
    shifts = []
    for aspect, alpha, known in _aspects([node], apart):
        now = known.get(node.node)
        before = [Reading(run[aspect.metric]) for run in runs if run.get(aspect.metric, 0) > 0]
        if now is None or len(before) < LEAST_EARLIER:
            continue
        # Only the last one is used, so it gets the false alarms of all.
        found = deviations(
            [*before, now],
            higher_is_better=aspect.higher_is_better,
            alpha=alpha * (len(before) + 1),
            assumed=aspect.assumed,
            least=aspect.least,
        )[-1]
        if found.off:
            shifts.append(Shift(aspect, now.value, found))
    return Slow(node, tuple(shifts), f"the median of its {len(runs)} earlier runs") if shifts else None
