"""From which value on is a series another one? Binary segmentation by medians.

A series is cut where the values lie closest to the medians of both sides (least absolute deviations); the cut counts
where the medians differ by more than chance gives; then both sides are looked at in the same way. What chance gives is
the diagnosis' natural spread, held against how much the series differs from one value to the next. One odd value among
others is no shift: that takes three, at the end of the series fewer.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from benchmark.cluster.diagnosis.spread import (
    LEAST_CHANGE,
    MAD_TO_SIGMA,
    MEDIAN_VARIANCE,
    NATURAL_SPREAD,
    believed,
)

# Values on either side of a cut. The newest values may be fewer: that something has just changed is what is wanted.
LEAST_SIDE = 3
# How often a series without any shift may be cut.
ALPHA = 0.002

_quantile = statistics.NormalDist().inv_cdf


def change_points(values: Sequence[float], assumed: float = NATURAL_SPREAD, alpha: float = ALPHA) -> list[int]:
    """Return the indexes of the first values of new levels, ascending. All values have to be above zero."""
    logs = [math.log(value) for value in values]
    natural = _natural(logs, assumed)
    found: list[int] = []
    open_parts = [(0, len(logs))]
    while open_parts:
        start, end = open_parts.pop()
        cut = _cut(logs, start, end, natural, alpha)
        if cut is not None:
            found.append(cut)
            open_parts += [(start, cut), (cut, end)]
    return sorted(found)


def _cut(logs: Sequence[float], start: int, end: int, natural: float, alpha: float) -> int | None:
    """Return where the part is cut, or None where it is one level."""
    newest = end == len(logs)
    last = end - 1 if newest else end - LEAST_SIDE
    cuts = range(start + LEAST_SIDE, last + 1)
    if not cuts:
        return None
    cut = min(cuts, key=lambda at: _deviations(logs[start:at]) + _deviations(logs[at:end]))
    left, right = logs[start:cut], logs[cut:end]
    middles = statistics.median(left), statistics.median(right)
    error = natural * math.sqrt(_variance(len(left)) + _variance(len(right)))
    change = abs(middles[1] - middles[0])
    # Each place where it could have been cut is a chance to be wrong, on two sides.
    beyond_chance = change > _quantile(1 - alpha / (2 * len(cuts))) * error
    return cut if beyond_chance and change >= math.log1p(LEAST_CHANGE) else None


def _natural(logs: Sequence[float], assumed: float) -> float:
    """Return the spread of one value, from the steps between neighbours: a shift is in few of them."""
    if len(logs) < 3:
        return assumed
    steps = [abs(after - before) for before, after in itertools.pairwise(logs)]
    return believed(MAD_TO_SIGMA * statistics.median(steps) / math.sqrt(2), len(logs), assumed)


def _deviations(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return math.fsum(abs(value - middle) for value in values)


def _variance(count: int) -> float:
    """Return the variance of the median of `count` values with the variance 1."""
    return (MEDIAN_VARIANCE if count > 2 else 1) / count
