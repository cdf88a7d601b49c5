"""Which GPU of a node is slow among the node's others, and which link between two of them, by what probes gave."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.cluster.diagnosis.aspects import off
from benchmark.cluster.diagnosis.probe_figures import ALPHA, aspect_of, comparable, compared, probed
from benchmark.cluster.diagnosis.slow import Shift
from benchmark.cluster.diagnosis.spread import Deviation, Reading
from benchmark.cluster.diagnosis.suspect import Suspect
from benchmark.cluster.results.load import LoadedNode
from benchmark.probed import NodeFigure, Place
from benchmark.records.probes import GpuProbes, HardwareProbes
from benchmark.words import plural

# A GPU's links are told from its peers' by their median: with three GPUs one bad link is half of two GPUs' links.
LEAST_LINKED = 4


@dataclass(frozen=True)
class SlowPlace:
    """A GPU of a node, or a link between two, in what it is slow (the most telling first), and beside what."""

    node: LoadedNode
    place: Place
    shifts: tuple[Shift, ...]
    against: str

    @property
    def worst(self) -> float:
        """How far it is off."""
        return max(shift.deviation.badness for shift in self.shifts)

    @property
    def sentences(self) -> list[str]:
        """What is slow about it, a sentence for each figure."""
        return [
            f"{self.place.words}: {compared(one.aspect, one.value, one.deviation.expected)}, {self.against}."
            for one in self.shifts
        ]


def slow_gpus(group: Sequence[LoadedNode]) -> list[SlowPlace]:
    """Return the slow GPUs of like nodes, each held against the other GPUs of its node; then slow links."""
    each = [(node, probed(node)) for node in group]
    found = [one for node, figures in each for one in _slow_in(node, figures, len(group))]
    named = {(one.node.node, one.place.gpu) for one in found}
    links = (
        one
        for one in _slow_links(each)
        if not named & {(one.node.node, one.place.gpu), (one.node.node, one.place.peer)}
    )
    return [*found, *links]


def apart(places: Iterable[SlowPlace]) -> dict[str, list[int]]:
    """Return for each node its GPUs that are slow by themselves."""
    found: dict[str, list[int]] = {}
    for one in places:
        if one.place.gpu is not None:
            found.setdefault(one.node.node, []).append(one.place.gpu)
    return found


def alone(node: LoadedNode, gpu: int) -> LoadedNode:
    """Return the node as if it had that GPU alone: causes are then looked for as between nodes."""
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
    """Return the GPU and its node's others, as rules take a node and its peers."""
    probes = one.node.result.probes if one.node.result else None
    own = one.place.gpu
    peers = [gpu.index for gpu in _like(probes, own)] if probes is not None and own is not None else []
    node = alone(one.node, own) if own is not None else one.node
    return Suspect(node, [alone(one.node, gpu) for gpu in peers], others="the node's other GPUs")


def _like(probes: HardwareProbes, own: int) -> list[GpuProbes]:
    names = {gpu.index: gpu.name for gpu in probes.gpus}
    return [gpu for gpu in probes.gpus if gpu.index != own and gpu.name == names.get(own)]


def _slow_in(node: LoadedNode, figures: Mapping[str, NodeFigure], nodes: int) -> Iterator[SlowPlace]:
    probes = node.result.probes if node.result else None
    if probes is None or len(probes.gpus) < 2:
        return
    names = {gpu.index: gpu.name for gpu in probes.gpus}
    each = [(one, values) for one in figures.values() if (values := _by_gpu(one))]
    shifts: dict[int, list[Shift]] = {}
    for one, values in each:
        aspect = aspect_of(one)
        for name in set(names.values()):
            like = {str(gpu): Reading(value) for gpu, value in values.items() if names.get(gpu) == name and value > 0}
            for key, far in off(like, aspect, ALPHA / len(each) / nodes).items():
                shifts.setdefault(int(key), []).append(Shift(aspect, like[key].value, far))
    for gpu, reported in sorted(shifts.items()):
        others = len(_like(probes, gpu))
        against = f"the median of the node's {others} other GPUs" if others > 1 else "the node's other GPU"
        yield SlowPlace(node, Place("", 0, gpu), _worst_first(reported), against)


def _by_gpu(one: NodeFigure) -> dict[int, float]:
    """Return a figure's value by GPU; of links, the median of those from and to it."""
    links: dict[int, list[float]] = {}
    for place in one.places:
        for gpu in (place.gpu, place.peer):
            if gpu is not None:
                links.setdefault(gpu, []).append(place.value)
    if one.places[0].peer is not None and len(links) < LEAST_LINKED:
        return {}
    return {gpu: statistics.median(values) for gpu, values in links.items()}


def _slow_links(probes: Sequence[tuple[LoadedNode, Mapping[str, NodeFigure]]]) -> Iterator[SlowPlace]:
    """Yield the slowest link of a node where it falls further behind the node's others than on like nodes.

    Within a node links may differ by how they are built: beside each other, or through the host.
    """
    counted = {node.node for node in comparable([node for node, _ in probes])}
    each = {node.node: (node, figures) for node, figures in probes if node.node in counted}
    for name in {name for _, found in each.values() for name, one in found.items() if one.places[0].peer is not None}:
        figures = {node: found[name] for node, (_, found) in each.items() if name in found and found[name].median > 0}
        shares = {node: Reading(one.worst.value / one.median) for node, one in figures.items() if one.worst.value > 0}
        for node, far in off(shares, aspect_of(figures[next(iter(figures))]), ALPHA).items():
            one = figures[node]
            shift = Shift(
                aspect_of(one),
                one.worst.value,
                Deviation(far.expected * one.median, far.change, far.badness, far.limit),
            )
            against = f"by what the slowest link is on {plural(len(shares) - 1, 'like node')}"
            yield SlowPlace(each[node][0], one.worst, (shift,), against)


def _worst_first(shifts: Sequence[Shift]) -> tuple[Shift, ...]:
    return tuple(sorted(shifts, key=lambda shift: -shift.deviation.badness))
