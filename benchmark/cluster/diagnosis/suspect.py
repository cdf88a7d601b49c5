"""A node that is slow, and what its peers are: what a rule that looks for the cause is given."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmark.cluster.results.load import LoadedNode
from benchmark.records import Drift, Environment, Gpu, GpuTelemetry, Telemetry
from benchmark.records.probes import GpuProbes


@dataclass(frozen=True)
class Suspect:
    """`peers` are the other nodes of its group; `drift` is what nodes with the same hardware differ in.

    A GPU that is held against the others of its node is given as a node that has no other. `others`: what peers are
    called in sentences; `slow_gpus`: of the node, what is slow about which, a sentence each.
    """

    node: LoadedNode
    peers: Sequence[LoadedNode]
    drift: Sequence[Drift] = ()
    others: str = "like nodes"
    slow_gpus: Sequence[str] = ()

    @property
    def environment(self) -> Environment | None:
        """What the node is."""
        return environment_of(self.node)

    @property
    def telemetry(self) -> Telemetry | None:
        """What was watched on the node."""
        return telemetry_of(self.node)


Rule = Callable[[Suspect], Iterable[str]]
"""Yields what speaks for its cause, a sentence each; nothing where nothing does."""


def environment_of(node: LoadedNode) -> Environment | None:
    """Return what the node is, where it was examined."""
    return node.result.environment if node.result else None


def telemetry_of(node: LoadedNode) -> Telemetry | None:
    """Return what was watched on the node, where anything was."""
    return node.result.telemetry if node.result else None


def gpus_seen(node: LoadedNode) -> tuple[Gpu, ...]:
    """Return the node's GPUs as they were before the run."""
    seen = environment_of(node)
    return seen.gpus if seen else ()


def gpus_probed(node: LoadedNode) -> tuple[GpuProbes, ...]:
    """Return what probes gave of the node's GPUs."""
    return node.result.probes.gpus if node.result and node.result.probes else ()


def gpus_watched(node: LoadedNode) -> tuple[GpuTelemetry, ...]:
    """Return the node's GPUs as they were while measuring."""
    watched = telemetry_of(node)
    return watched.gpus if watched else ()


def usual(peers: Iterable[LoadedNode], value: Callable[[LoadedNode], float | None]) -> float | None:
    """Return the median of a value over the peers that have it, or None."""
    known = [one for peer in peers if (one := value(peer)) is not None]
    return statistics.median(known) if known else None


def lowest(values: Iterable[float | None]) -> float | None:
    """Return the lowest of the values that are known, or None."""
    return min((value for value in values if value is not None), default=None)


def highest(values: Iterable[float | None]) -> float | None:
    """Return the highest of the values that are known, or None."""
    return max((value for value in values if value is not None), default=None)
