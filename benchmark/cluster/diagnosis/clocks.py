"""Cause: the GPU runs, or may run, at lower clocks than those of like nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_probed, gpus_seen, gpus_watched, lowest, usual
from benchmark.cluster.results.load import LoadedNode

# Boost clocks of like GPUs naturally differ by a few steps of 15 MHz.
LOWER = 0.97
SUSTAINED = "sustained_clock"


def lower_clocks(suspect: Suspect) -> Iterator[str]:
    """Evidence: a clock below 97 % of the median of like nodes'.

    Either the mean under load (queries, or a long matrix product), or the highest clock allowed.
    """
    yield from _lower(suspect, "The mean SM clock under load", lambda node: lowest(
        gpu.sm_clock_mhz for gpu in gpus_watched(node)))  # fmt: skip
    yield from _lower(suspect, "The mean SM clock of a long matrix product", lambda node: lowest(
        gpu.figures[SUSTAINED].value for gpu in gpus_probed(node) if SUSTAINED in gpu.figures))  # fmt: skip
    yield from _lower(suspect, "The highest SM clock allowed", lambda node: lowest(
        gpu.sm_clock_max_mhz for gpu in gpus_seen(node)))  # fmt: skip
    yield from _lower(suspect, "The highest memory clock allowed", lambda node: lowest(
        gpu.memory_clock_max_mhz for gpu in gpus_seen(node)))  # fmt: skip


def _lower(suspect: Suspect, what: str, clock: Callable[[LoadedNode], float | None]) -> Iterator[str]:
    own, others = clock(suspect.node), usual(suspect.peers, clock)
    if own is not None and others is not None and own < LOWER * others:
        yield f"{what} is {own:.0f} MHz, {others:.0f} MHz on {suspect.others}."
