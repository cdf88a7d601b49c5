"""Find the values at which a series shifts, by binary segmentation with medians.

A series is cut where the values are closest to the medians of both sides (least absolute deviations). The cut counts if
the medians differ by more than chance explains; then both sides are cut in the same way. Chance is the diagnosis'
natural spread, adjusted by how much the series differs from one value to the next. A single odd value is not a shift:
that takes three, or fewer at the end of the series.
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

# Least number of values on either side of a cut. Fewer are enough at the end, so that a recent change is noticed.
LEAST_SIDE = 3
# How often a series without any shift may be cut.
ALPHA = 0.002

_quantile = statistics.NormalDist().inv_cdf


def change_points(values: Sequence[float], assumed: float = NATURAL_SPREAD, alpha: float = ALPHA) -> list[int]:
    """Return the indexes of the first values of new levels, ascending. All values must be above zero."""
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
    """Return where the part is cut, or None if it is one level."""
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
    # Each possible cut is a chance to be wrong, in two directions.
    beyond_chance = change > _quantile(1 - alpha / (2 * len(cuts))) * error
    return cut if beyond_chance and change >= math.log1p(LEAST_CHANGE) else None


def _natural(logs: Sequence[float], assumed: float) -> float:
    """Return the spread of one value, from the steps between neighbours: few of these contain a shift."""
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
