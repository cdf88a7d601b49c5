"""The model came more slowly from the disk than on like nodes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.hardware import slower_disk
from benchmark.cluster.diagnosis.suspect import Suspect, usual
from benchmark.cluster.results.load import LoadedNode

# Loading once from the page cache and once from the disk differs by less than this on a disk that is fit.
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
