"""A node's probes as figures: each with its median over GPUs or pairs, and the worst place."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from benchmark.records.probes import HardwareProbes, Measured

# Prefix of a probe's name among metrics.
PREFIX = "probe."
# A GPU or pair that is worse than its node's median by this much is marked.
CLEARLY = 0.05
# A lower median is too small to compare values with.
LEAST = 1e-9
PAIR = re.compile(r"(\w+?)_([0-9]+)_to_([0-9]+)")
_COUNTED = "of "


@dataclass(frozen=True)
class Place:
    """The place of one value: the node itself, a GPU, or a GPU and a peer, by their indexes."""

    name: str
    """The recorded name, including the pair, if any."""
    value: float
    gpu: int | None = None
    peer: int | None = None

    @property
    def words(self) -> str:
        """The place in words; empty: the node itself, or all its GPUs together."""
        if self.gpu is None:
            return ""
        return f"GPU {self.gpu}" if self.peer is None else f"GPU {self.gpu} to {self.peer}"


@dataclass(frozen=True)
class NodeFigure:
    """One figure of a node, with its values in all places. `name`: without the pair, as in peer_copy."""

    name: str
    unit: str
    better: Literal["higher", "lower"] | None
    places: tuple[Place, ...]

    @property
    def metric(self) -> str:
        """Its name among metrics."""
        return PREFIX + self.name

    @property
    def words(self) -> str:
        """The name in words."""
        return words_of(self.name)

    @cached_property
    def median(self) -> float:
        """The median of all places."""
        return statistics.median(place.value for place in self.places)

    @cached_property
    def worst(self) -> Place:
        """The place with the worst value, or with the highest if the figure is not ranked."""
        pick = min if self.better == "higher" else max
        return pick(self.places, key=lambda place: place.value)

    @property
    def off(self) -> float | None:
        """How far the worst place is from the median, if it is clearly worse: -0.2 is 20 % less."""
        if self.better is None or len(self.places) < 2 or not self.median:
            return None
        change = self.worst.value / self.median - 1
        return change if abs(change) >= CLEARLY else None


def figures(probes: HardwareProbes | None) -> dict[str, NodeFigure]:
    """Return a node's figures by name: of its GPUs, between GPUs, and its own; without those not measured."""
    found: dict[str, list[tuple[Place, Measured]]] = {}
    for name, place, measured in _measured(probes) if probes else ():
        found.setdefault(name, []).append((place, measured))
    made = {}
    for name, each in found.items():
        unit = unit_of(measured for _, measured in each)
        # Values in different units cannot be ranked.
        better = each[0][1].better if unit else None
        made[name] = NodeFigure(name, unit, better, tuple(place for place, _ in each))
    return made


def ranked(found: Iterable[NodeFigure]) -> list[NodeFigure]:
    """Return the figures that can be better or worse; the others only explain these."""
    return [one for one in found if one.better is not None]


def in_order(nodes: Iterable[dict[str, NodeFigure]]) -> list[NodeFigure]:
    """Return each figure that any of the nodes has, from the first node that has it; ranked ones come first."""
    first: dict[str, NodeFigure] = {}
    for each in nodes:
        for name, one in each.items():
            first.setdefault(name, one)
    return sorted(first.values(), key=lambda one: one.better is None)


def unit_of(measured: Iterable[Measured]) -> str:
    """Return the common unit of values. A count "of 39" has none: the total may differ."""
    units = {one.unit for one in measured}
    (unit,) = units if len(units) == 1 else ("",)
    return "" if unit.startswith(_COUNTED) else unit


def words_of(name: str) -> str:
    """Return a figure's name, or its name among metrics, in words."""
    return name.removeprefix(PREFIX).replace("_", " ")


def column(name: str, unit: str) -> str:
    """Return a figure's column name in tables: `probe_device_memory_read_gb_s`."""
    words = [PREFIX.rstrip("."), name, *filter(None, re.split(r"[^a-z0-9]+", unit.lower()))]
    return "_".join(words)


def _measured(probes: HardwareProbes) -> Iterator[tuple[str, Place, Measured]]:
    for gpu in probes.gpus:
        yield from ((name, Place(name, one.value, gpu.index), one) for name, one in gpu.figures.items())
    for name, one in probes.between_gpus.items():
        if pair := PAIR.fullmatch(name):
            yield pair[1], Place(name, one.value, int(pair[2]), int(pair[3])), one
        else:
            yield name, Place(name, one.value), one
    yield from ((name, Place(name, one.value), one) for name, one in probes.node.items())
