"""Changes in the hardware probes: of like nodes together, and of single GPUs, pairs and nodes.

A run has one value of each, so the spread from run to run is assumed, not measured: docs/metrics.md, Probes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmark.cluster.comparison.bootstrap import CONFIDENCE
from benchmark.cluster.comparison.measured import judged
from benchmark.cluster.diagnosis.probe_figures import kind_of
from benchmark.cluster.results.load import LoadedNode
from benchmark.probed import LEAST, NodeFigure, figures, in_order
from benchmark.records import MetricChange, NodeChange
from benchmark.text.figures import probe_unit, probe_value

# Most figures shown for hardware that is not compared.
MOST_SHOWN = 3

_quantile = statistics.NormalDist().inv_cdf
Figures = Mapping[str, NodeFigure]


def probe_changes(before: Sequence[LoadedNode], after: Sequence[LoadedNode], floor: float) -> Iterator[MetricChange]:
    """Yield the change of each figure: of the mean over the nodes' medians.

    Nothing if either side was not probed; figures that only explain others are not judged.
    """
    first, second = _of(before), _of(after)
    if not first or not second:
        return
    for one in in_order([*second.values(), *first.values()]):
        sides = [_mean(side, one.name) for side in (first, second)]
        values: dict[str, Any] = {
            "metric": one.metric, "unit": one.unit, "of": "node", "before": sides[0], "after": sides[1],
        }  # fmt: skip
        yield MetricChange.model_validate({**values, **_outcome(one, sides, len(first), len(second), floor)})


def single_changes(before: Sequence[LoadedNode], after: Sequence[LoadedNode], floor: float) -> Iterator[NodeChange]:
    """Yield what is better or worse for a single node among several, and for a GPU or pair apart from its node.

    The mean, or the node's median, would hide it. With more places intervals are wider, so that all of a figure's
    together have 99 % confidence.
    """
    first, second = _of(before), _of(after)
    both = {node: (first[node], each) for node, each in second.items() if node in first}
    for one in in_order(second.values()):
        pairs = [
            (node, was[one.name], now[one.name])
            for node, (was, now) in both.items()
            if one.name in was and one.name in now
        ]
        if one.better is not None and pairs:
            yield from _nodes(one, pairs, floor)
            yield from _places(one, pairs, floor)


def _nodes(one: NodeFigure, pairs: Sequence[tuple[str, NodeFigure, NodeFigure]], floor: float) -> Iterator[NodeChange]:
    if len(pairs) > 1:
        reach = _reach(one, len(pairs))
        for node, was, now in pairs:
            if found := _change(one, was.median, now.median, reach, floor):
                yield NodeChange.model_validate({"node": node, **found})


def _places(one: NodeFigure, pairs: Sequence[tuple[str, NodeFigure, NodeFigure]], floor: float) -> Iterator[NodeChange]:
    several = [pair for pair in pairs if len(pair[2].places) > 1]
    reach = _reach(one, sum(len(now.places) for _, _, now in several))
    for node, was, now in several:
        earlier = {(place.name, place.gpu): place.value for place in was.places}
        for place in now.places:
            value = earlier.get((place.name, place.gpu))
            found = _change(one, value, place.value, reach, floor)
            if value is None or found is None or min(was.median, now.median) <= LEAST:
                continue
            # The change of its whole node is already reported, or part of the mean.
            by_itself = math.log(place.value / value) - math.log(now.median / was.median)
            if abs(by_itself) > reach:
                yield NodeChange.model_validate({"node": node, "gpu": place.gpu, "peer": place.peer, **found})


def _reach(one: NodeFigure, tests: int) -> float:
    """Return how far a value may be from an earlier one by chance, as a logarithm, among `count` values."""
    return _quantile(1 - (1 - CONFIDENCE) / 2 / max(1, tests)) * math.sqrt(2) * kind_of(one.name).spread


def _change(one: NodeFigure, before: float | None, after: float, reach: float, floor: float) -> dict[str, Any] | None:
    """Return the fields of a NodeChange; None if it is neither better nor worse."""
    if before is None or min(before, after) <= LEAST:
        return None
    log = math.log(after / before)
    change, low, high = math.expm1(log), math.expm1(log - reach), math.expm1(log + reach)
    outcome = judged(change, low, high, floor, higher_is_better=one.better == "higher")
    if outcome not in ("better", "worse"):
        return None
    values = {"before": before, "after": after, "change": change, "low": low, "high": high}
    return {"metric": one.metric, "unit": one.unit, **values, "outcome": outcome}


def figures_words(nodes: Sequence[LoadedNode]) -> str:
    """Return the means of the first figures of nodes whose hardware is not compared."""
    found = _of(nodes)
    shown = [one for one in in_order(found.values()) if one.better is not None][:MOST_SHOWN]
    each = ((one, _mean({node: has for node, has in found.items() if one.name in has}, one.name)) for one in shown)
    words = (f"{one.words} {probe_value(value, one.unit)}{probe_unit(one.unit)}" for one, value in each)
    return f"{', '.join(words)} per node"


def _of(nodes: Sequence[LoadedNode]) -> dict[str, dict[str, NodeFigure]]:
    found = {node.node: figures(node.result.probes) for node in nodes if node.result}
    return {node: each for node, each in found.items() if each}


def _mean(nodes: Mapping[str, Figures], name: str) -> float | None:
    """Return the mean over the nodes; None if one lacks the figure, and would be left out."""
    values = [each[name].median for each in nodes.values() if name in each]
    return statistics.fmean(values) if values and len(values) == len(nodes) else None


def _outcome(one: NodeFigure, sides: Sequence[float | None], before: int, after: int, floor: float) -> dict[str, Any]:
    first, second = sides
    if first is None or second is None:
        return {"outcome": "not judged", "note": "undefined"}
    change = second / first - 1 if first > LEAST else None
    if one.better is None or change is None or second <= LEAST:
        return {"outcome": "not judged", "note": "not ranked", "change": change}
    reach = _quantile((1 + CONFIDENCE) / 2) * kind_of(one.name).spread * math.sqrt(1 / before + 1 / after)
    low, high = (math.expm1(math.log1p(change) + side * reach) for side in (-1, 1))
    outcome = judged(change, low, high, floor, higher_is_better=one.better == "higher")
    return {"change": change, "low": low, "high": high, "outcome": outcome}
