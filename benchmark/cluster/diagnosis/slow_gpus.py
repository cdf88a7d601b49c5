"""Which GPU of a node, or link between two of its GPUs, is slower than the others, according to the probes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.cluster.diagnosis.aspects import off
from benchmark.cluster.diagnosis.probe_figures import ALPHA, aspect_of, comparable, compared, is_shared, probed
from benchmark.cluster.diagnosis.slow import Shift
from benchmark.cluster.diagnosis.spread import Deviation, Reading
from benchmark.cluster.diagnosis.suspect import Suspect, gpus_probed
from benchmark.cluster.results.load import LoadedNode
from benchmark.probed import NodeFigure, Place
from benchmark.words import plural

Probed = tuple[LoadedNode, Mapping[str, NodeFigure]]
"""A node and its figures by name."""

# A GPU is judged by the median of its links: with three GPUs, one bad link is half of two GPUs' links.
LEAST_LINKED = 4


@dataclass(frozen=True)
class SlowPlace:
    """A slow GPU of a node, or link between two, the figures in which it is slow, and what it was compared with."""

    node: LoadedNode
    place: Place
    shifts: tuple[Shift, ...]
    against: str

    @property
    def worst(self) -> float:
        """The largest deviation."""
        return max(shift.deviation.badness for shift in self.shifts)

    @property
    def sentences(self) -> list[str]:
        """A sentence for each figure in which it is slow."""
        return [
            f"{self.place.words}: {compared(one.aspect, one.value, one.deviation.expected)}, {self.against}."
            for one in self.shifts
        ]


def slow_gpus(group: Sequence[LoadedNode]) -> list[SlowPlace]:
    """Return the slow GPUs of like nodes, compared with the others of their node or of all nodes, and slow links.

    If most of a node's GPUs are slow, the node is slow, not they.
    """
    each = [(node, probed(node)) for node in group]
    found = {
        (one.node.node, one.place.gpu): one for node, figures in each for one in _slow_in(node, figures, len(group))
    }
    for one in _slow_among_all(each):
        found.setdefault((one.node.node, one.place.gpu), one)
    links = (
        one
        for one in _slow_links(each)
        if not found.keys() & {(one.node.node, one.place.gpu), (one.node.node, one.place.peer)}
    )
    return [*found.values(), *links]


def apart(places: Iterable[SlowPlace]) -> dict[str, list[int]]:
    """Return, for each node, its GPUs that are slow on their own."""
    found: dict[str, list[int]] = {}
    for one in places:
        if one.place.gpu is not None:
            found.setdefault(one.node.node, []).append(one.place.gpu)
    return found


def alone(node: LoadedNode, gpu: int) -> LoadedNode:
    """Return the node as if it had only that GPU, so that causes can be sought as between nodes."""
    result = node.result
    if result is None:
        return node
    changes = {
        "environment": result.environment
        and result.environment.model_copy(
            update={"gpus": tuple(one for one in result.environment.gpus if one.index == gpu)}
        ),
        "telemetry": result.telemetry
        and result.telemetry.model_copy(
            update={"gpus": tuple(one for one in result.telemetry.gpus if one.index == gpu)}
        ),
        "probes": result.probes
        and result.probes.model_copy(update={"gpus": tuple(one for one in result.probes.gpus if one.index == gpu)}),
    }
    return replace(node, result=result.model_copy(update=changes))


def suspect_of(one: SlowPlace) -> Suspect:
    """Return the GPU and the node's others in the form of a node and its peers, for the rules."""
    own, names = one.place.gpu, _names(one.node)
    if own is None:
        return Suspect(one.node, ())
    peers = [alone(one.node, gpu) for gpu, name in names.items() if gpu != own and name == names.get(own)]
    return Suspect(alone(one.node, own), peers, others="the node's other GPUs")


def _slow_in(node: LoadedNode, figures: Mapping[str, NodeFigure], nodes: int) -> Iterator[SlowPlace]:
    names = _names(node)
    if len(names) < 2:
        return
    each = [(one, values) for one in figures.values() if (values := _by_gpu(one))]
    shifts: dict[int, list[Shift]] = {}
    for one, values in each:
        aspect = aspect_of(one, is_shared(node))
        for name in set(names.values()):
            like = {str(gpu): Reading(value) for gpu, value in values.items() if names.get(gpu) == name and value > 0}
            for key, far in off(like, aspect, ALPHA / len(each) / nodes).items():
                shifts.setdefault(int(key), []).append(Shift(aspect, like[key].value, far))
    for gpu, reported in sorted(shifts.items()):
        others = sum(name == names[gpu] for name in names.values()) - 1
        against = f"the median of the node's {others} other GPUs" if others > 1 else "the node's other GPU"
        yield SlowPlace(node, Place("", 0, gpu), _worst_first(reported), against)


def _slow_among_all(probes: Sequence[Probed]) -> Iterator[SlowPlace]:
    """Yield GPUs that are slow among those of all like nodes: within a node, half of its GPUs can hide each other."""
    counted = {node.node for node in comparable([node for node, _ in probes])}
    each = {node.node: (node, figures) for node, figures in probes if node.node in counted}
    known = {name: _names(node) for name, (node, _) in each.items()}
    if len(each) < 2 or any(len(names) < 2 for names in known.values()):
        return
    shared = any(is_shared(node) for node, _ in each.values())
    pools: dict[tuple[str, str], dict[str, Reading]] = {}
    for node, (_, figures) in each.items():
        for one in figures.values():
            for gpu, value in _by_gpu(one).items():
                if value > 0 and gpu in known[node]:
                    pools.setdefault((one.name, known[node][gpu]), {})[f"{gpu} {node}"] = Reading(value)
    shifts: dict[tuple[str, int], list[Shift]] = {}
    for (figure, model), pool in pools.items():
        aspect = aspect_of(next(found[figure] for _, found in each.values() if figure in found), shared)
        slow = off(pool, aspect, ALPHA / len(pools))
        of_node = Counter(key.partition(" ")[2] for key in slow)
        for key, far in slow.items():
            index, _, node = key.partition(" ")
            if 2 * of_node[node] <= sum(name == model for name in known[node].values()):
                shifts.setdefault((node, int(index)), []).append(Shift(aspect, pool[key].value, far))
    for (node, own), reported in shifts.items():
        like = sum(name == known[node][own] for names in known.values() for name in names.values())
        against = f"the median of {like - 1} GPUs of like nodes"
        yield SlowPlace(each[node][0], Place("", 0, own), _worst_first(reported), against)


def _names(node: LoadedNode) -> dict[int, str]:
    return {gpu.index: gpu.name for gpu in gpus_probed(node)}


def _by_gpu(one: NodeFigure) -> dict[int, float]:
    """Return a figure's value by GPU; for links, the median of those from and to the GPU."""
    links: dict[int, list[float]] = {}
    for place in one.places:
        for gpu in (place.gpu, place.peer):
            if gpu is not None:
                links.setdefault(gpu, []).append(place.value)
    if one.places[0].peer is not None and len(links) < LEAST_LINKED:
        return {}
    return {gpu: statistics.median(values) for gpu, values in links.items()}


def _slow_links(probes: Sequence[Probed]) -> Iterator[SlowPlace]:
    """Yield the slowest link of a node if it is further behind the node's others than on like nodes.

    Links within a node differ by design: direct, or through the host.
    """
    counted = {node.node for node in comparable([node for node, _ in probes])}
    each = {node.node: (node, figures) for node, figures in probes if node.node in counted}
    for name in {name for _, found in each.values() for name, one in found.items() if one.places[0].peer is not None}:
        figures = {node: found[name] for node, (_, found) in each.items() if name in found and found[name].median > 0}
        shares = {node: Reading(one.worst.value / one.median) for node, one in figures.items() if one.worst.value > 0}
        aspect = aspect_of(next(iter(figures.values())), any(is_shared(node) for node, _ in each.values()))
        for node, far in off(shares, aspect, ALPHA).items():
            one = figures[node]
            shift = Shift(
                aspect,
                one.worst.value,
                Deviation(far.expected * one.median, far.change, far.badness, far.limit),
            )
            against = f"by what the slowest link is on {plural(len(shares) - 1, 'like node')}"
            yield SlowPlace(each[node][0], one.worst, (shift,), against)


def _worst_first(shifts: Sequence[Shift]) -> tuple[Shift, ...]:
    return tuple(sorted(shifts, key=lambda shift: -shift.deviation.badness))
