"""A slow node and its peers: the input of a rule that looks for the cause."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmark.cluster.results.load import LoadedNode
from benchmark.records import Drift, Environment, Gpu, GpuTelemetry, Telemetry
from benchmark.records.probes import GpuProbes


@dataclass(frozen=True)
class Suspect:
    """A slow node. `peers`: the other nodes of its group; `drift`: what nodes with the same hardware differ in.

    A GPU that is compared with the others of its node is represented by a node with only that GPU. `others`: the name
    of the peers in sentences; `slow_gpus`: a sentence for each figure of the node's slow GPUs.
    """

    node: LoadedNode
    peers: Sequence[LoadedNode]
    drift: Sequence[Drift] = ()
    others: str = "like nodes"
    slow_gpus: Sequence[str] = ()

    @property
    def environment(self) -> Environment | None:
        """The node's environment."""
        return environment_of(self.node)

    @property
    def telemetry(self) -> Telemetry | None:
        """The node's telemetry."""
        return telemetry_of(self.node)


Rule = Callable[[Suspect], Iterable[str]]
"""Yields the evidence for its cause, in sentences."""


def environment_of(node: LoadedNode) -> Environment | None:
    """Return the node's environment, if it was examined."""
    return node.result.environment if node.result else None


def telemetry_of(node: LoadedNode) -> Telemetry | None:
    """Return the node's telemetry, if there is any."""
    return node.result.telemetry if node.result else None


def gpus_seen(node: LoadedNode) -> tuple[Gpu, ...]:
    """Return the node's GPUs as they were before the run."""
    seen = environment_of(node)
    return seen.gpus if seen else ()


def gpus_probed(node: LoadedNode) -> tuple[GpuProbes, ...]:
    """Return the probes' figures of the node's GPUs."""
    return node.result.probes.gpus if node.result and node.result.probes else ()


def gpus_watched(node: LoadedNode) -> tuple[GpuTelemetry, ...]:
    """Return the node's GPUs as they were while measuring."""
    watched = telemetry_of(node)
    return watched.gpus if watched else ()


def usual(peers: Iterable[LoadedNode], value: Callable[[LoadedNode], float | None]) -> float | None:
    """Return the median of a value over the peers that have it, if any."""
    known = [one for peer in peers if (one := value(peer)) is not None]
    return statistics.median(known) if known else None


def lowest(values: Iterable[float | None]) -> float | None:
    """Return the lowest known value, if any."""
    return min((value for value in values if value is not None), default=None)


def highest(values: Iterable[float | None]) -> float | None:
    """Return the highest known value, if any."""
    return max((value for value in values if value is not None), default=None)
