"""Figures of the hardware probes as metrics in which to compare like nodes and like GPUs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from benchmark.cluster.diagnosis.aspects import Aspect
from benchmark.cluster.report.amounts import amount
from benchmark.cluster.results.load import LoadedNode
from benchmark.probed import NodeFigure, figures, ranked
from benchmark.verdict import label

# How often a run of healthy nodes may name one because of its probes, over all figures; equally often one of its GPUs
# compared with the node's others, compared with those of all nodes, and a link.
ALPHA = 0.0005


@dataclass(frozen=True)
class Kind:
    """How much healthy hardware differs: one standard deviation, and the least change that is reported."""

    spread: float
    least: float


# By the beginning of a figure's name; the first match counts. The spread is assumed as long as there are too few parts
# to show theirs; a change below the least one is no fault even if the others are closer to each other.
KINDS: Mapping[str, Kind] = {
    # The memory's clock is fixed.
    "device_memory": Kind(0.01, 0.05),
    # At the power limit each chip settles at its own clock.
    "matrix": Kind(0.015, 0.05),
    "sustained_matrix": Kind(0.015, 0.05),
    # A GPU at the other socket is further away; half the lanes, or one generation less, are half of it.
    "host_to_device": Kind(0.05, 0.40),
    "device_to_host": Kind(0.05, 0.40),
    "peer_copy": Kind(0.02, 0.10),
    # Times of microseconds depend on the cores that a process happens to get. Between runs on one healthy machine with
    # two H200s a kernel's differed by half, the small all-reduce's by a factor of two.
    "all_reduce_16_kib": Kind(0.35, 1.50),
    "all_reduce": Kind(0.03, 0.10),
    "kernel": Kind(0.20, 1.00),
    # Boost clocks, and other processes.
    "cpu": Kind(0.05, 0.20),
    # Where pages are, and which cores copy them.
    "host_memory": Kind(0.08, 0.25),
    # Shared with others, often by a network.
    "disk": Kind(0.10, 0.40),
}
# For any other probe.
UNKNOWN = Kind(0.05, 0.20)


# Nodes that share a machine, with each other or with other runs, probe what is left of it: only half is reported.
LEAST_SHARED = 1.0


def kind_of(name: str, shared: bool = False) -> Kind:
    """Return how much a figure may differ between healthy parts; `shared`: on a machine that others use too."""
    kind = next((kind for begins, kind in KINDS.items() if name.startswith(begins)), UNKNOWN)
    return Kind(kind.spread, max(kind.least, LEAST_SHARED)) if shared else kind


def is_shared(node: LoadedNode) -> bool:
    """Return whether the node shares its machine."""
    return node.result is not None and node.result.resolved.settings.benchmark_shared_machine


def aspect_of(one: NodeFigure, shared: bool) -> Aspect:
    """Return a probe's figure as a metric in which a slow node, or a slow GPU, is worse."""
    kind = kind_of(one.name, shared)
    return Aspect(one.metric, one.better == "higher", kind.spread, kind.least, one.unit)


def probed(node: LoadedNode) -> dict[str, NodeFigure]:
    """Return the figures of a node that can be better or worse, by name."""
    found = figures(node.result.probes if node.result else None)
    return {one.name: one for one in ranked(found.values())}


def comparable(nodes: Sequence[LoadedNode]) -> list[LoadedNode]:
    """Return the nodes whose probes can be compared: those with the most common number of GPUs.

    With more GPUs, each gets less of what they share.
    """
    counts = {node.node: len(node.result.probes.gpus) for node in nodes if node.result and node.result.probes}
    if not counts:
        return []
    usual = Counter(counts.values()).most_common(1)[0][0]
    return [node for node in nodes if counts.get(node.node) == usual]


def middle(one: NodeFigure, without: Collection[int] = ()) -> float | None:
    """Return the median of a figure over a node's GPUs, without those that are slow on their own; None without values.

    Otherwise a node with two GPUs would be called slow because of one of them.
    """
    values = [place.value for place in one.places if not {place.gpu, place.peer} & set(without)]
    value = statistics.median(values or [place.value for place in one.places])
    return value if value > 0 else None


def compared(aspect: Aspect, value: float, expected: float) -> str:
    """Return "device memory read 3,020 GB/s, 28 % below 4,190 GB/s"."""
    beside = "below" if value < expected else "above"
    return (
        f"{label(aspect.metric)} {amount(value)}{aspect.unit}, {abs(value / expected - 1):.0%} {beside} "
        f"{amount(expected)}{aspect.unit}"
    )
