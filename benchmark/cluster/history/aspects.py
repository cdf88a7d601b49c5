"""The hardware probes as series over runs: which direction is better, and their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmark.cluster.diagnosis.aspects import Aspect
from benchmark.cluster.diagnosis.probe_figures import kind_of
from benchmark.probed import PREFIX
from benchmark.records import NodeHistory
from benchmark.records.probes import Measured


def probe_aspects(units: Mapping[str, str]) -> Iterator[Aspect]:
    """Yield an aspect for each probe, from its name and unit."""
    for metric, unit in units.items():
        higher = Measured(value=0, unit=unit).better == "higher"
        yield Aspect(metric, higher, kind_of(metric.removeprefix(PREFIX)).spread, own_unit=unit)


def aspect_in(history: NodeHistory, metric: str) -> Aspect:
    """Return the label and the unit of a history's metric."""
    return Aspect(metric, higher_is_better=True, own_unit=history.units.get(metric, ""))
