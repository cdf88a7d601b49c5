"""Cause: the GPU's link to the host is narrower, or of an older generation, than on like nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_seen, gpus_watched, lowest, usual
from benchmark.cluster.results.load import LoadedNode


def lower_pcie(suspect: Suspect) -> Iterator[str]:
    """Evidence: fewer lanes or a lower generation than the median of like nodes; under load, or at best.

    An idle link is ignored: GPUs lower its generation to save power.
    """
    for what, under_load, at_best in (
        ("lanes", "pcie_width", "pcie_width_max"),
        ("generation", "pcie_generation", "pcie_generation_max"),
    ):
        found = _lower(suspect, _lowest(gpus_watched, under_load))
        when = "under load"
        if found is None:
            found, when = _lower(suspect, _lowest(gpus_seen, at_best)), "at best"
        if found is not None:
            own, others = found
            yield f"PCIe {what} {when}: {own:.0f}, {others:.0f} on {suspect.others}."


def _lowest(gpus: Callable[[LoadedNode], tuple[object, ...]], field: str) -> Callable[[LoadedNode], float | None]:
    return lambda node: lowest(getattr(gpu, field) for gpu in gpus(node))


def _lower(suspect: Suspect, value: Callable[[LoadedNode], float | None]) -> tuple[float, float] | None:
    own, others = value(suspect.node), usual(suspect.peers, value)
    return (own, others) if own is not None and others is not None and own < others else None
