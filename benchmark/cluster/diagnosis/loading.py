"""Cause: the model was read from the disk more slowly than on like nodes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.hardware import slower_disk
from benchmark.cluster.diagnosis.suspect import Suspect, usual
from benchmark.cluster.results.load import LoadedNode

# On a healthy disk, loading from the disk and from the page cache differ by less.
SLOWER = 2.0
MORE_S = 10.0


def slow_loading(suspect: Suspect) -> Iterator[str]:
    """Evidence: loading took twice as long as the median of like nodes, and ten seconds more."""
    own, others = seconds(suspect.node), usual(suspect.peers, seconds)
    if own is not None and others is not None and own >= SLOWER * others and own >= others + MORE_S:
        yield f"Loading the model took {own:.0f} s, {others:.0f} s on like nodes."
        yield from slower_disk(suspect)


def seconds(node: LoadedNode) -> float | None:
    """Return how long the node took to load the model."""
    return node.result.stages_s.get("loading") if node.result else None
