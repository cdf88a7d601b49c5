"""The probes of the hardware as series over runs: what is better, and what each is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmark.cluster.comparison.probes import HOST_SPREAD
from benchmark.cluster.diagnosis.aspects import Aspect
from benchmark.cluster.diagnosis.spread import NATURAL_SPREAD
from benchmark.records import NodeHistory
from benchmark.records.probes import Measured
from benchmark.text import probe_unit


def probe_aspects(units: Mapping[str, str]) -> Iterator[Aspect]:
    """Yield an aspect for each probe, by its unit."""
    for metric, unit in units.items():
        higher = Measured(value=0, unit=unit).better == "higher"
        yield Aspect(metric, higher, NATURAL_SPREAD if higher else HOST_SPREAD)


def unit_in(history: NodeHistory, aspect: Aspect) -> str:
    """Return the unit of an aspect's values, with a leading space, or nothing."""
    return probe_unit(history.units.get(aspect.metric, "")) or aspect.unit
