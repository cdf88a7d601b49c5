"""Cause: the hardware itself is slower, according to the probes before the engine loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmark.cluster.diagnosis.probe_figures import aspect_of, comparable, compared, is_shared, middle, probed
from benchmark.cluster.diagnosis.suspect import Suspect, usual
from benchmark.cluster.results.load import LoadedNode
from benchmark.probed import in_order

# The figure of the disk: a model is loaded from it, but no measurement waits for it.
DISK = "disk_read"


def slower_hardware(suspect: Suspect) -> Iterator[str]:
    """Evidence: GPUs that are slower than the node's others, and figures that are worse than like nodes'.

    `probe_figures.KINDS` says how much healthy hardware may differ.
    """
    yield from suspect.slow_gpus
    nodes = comparable([suspect.node, *suspect.peers])
    if suspect.node not in nodes:
        return
    peers = [node for node in nodes if node is not suspect.node]
    for one in in_order([probed(suspect.node)]):
        if one.name != DISK:
            yield from _worse(suspect.node, peers, one.name)


def slower_disk(suspect: Suspect) -> Iterator[str]:
    """Evidence for slow loading: the disk reads more slowly than on like nodes."""
    yield from _worse(suspect.node, suspect.peers, DISK)


def _worse(node: LoadedNode, peers: Sequence[LoadedNode], name: str) -> Iterator[str]:
    def value(one: LoadedNode) -> float | None:
        found = probed(one).get(name)
        return middle(found) if found else None

    own, others = value(node), usual(peers, value)
    if own is None or others is None:
        return
    aspect = aspect_of(probed(node)[name], is_shared(node))
    change = own / others if aspect.higher_is_better else others / own
    if change <= 1 / (1 + aspect.least):
        words = compared(aspect, own, others)
        yield f"{words[0].upper()}{words[1:]} on like nodes."
