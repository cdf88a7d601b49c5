"""When a node differs from its peers: median and MAD of logarithms, with a minimum spread if nodes are few.

Formulas and thresholds: docs/metrics.md, Diagnosis; benchmarks/diagnosis.py measures how well they work.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The assumed spread of like nodes (one standard deviation) unless they themselves show another one.
NATURAL_SPREAD = 0.02
# A smaller change is never reported, however close to each other the other nodes are.
LEAST_CHANGE = 0.03
# MAD to standard deviation, for normal values.
MAD_TO_SIGMA = 1.4826
# The median's variance is this times the mean's.
MEDIAN_VARIANCE = math.pi / 2
# Relative standard error of MAD as a standard deviation, times the root of the degrees of freedom.
MAD_ERROR = 1.166
# How far the nodes' own spread may be wrong: standard errors below (68 % one-sided confidence is 0.5; this is 84 %) ...
LOWER_Z = 1.0
# ... and above (99 %): a small spread is believed only of many nodes.
UPPER_Z = 2.33

_quantile = statistics.NormalDist().inv_cdf


@dataclass(frozen=True)
class Reading:
    """One node's value of one metric, and its standard error from the node's own samples, relative to the value."""

    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Deviation:
    """How far a node is from the others: `change` is value / expected - 1; the node is off if `badness` > `limit`."""

    expected: float
    change: float
    badness: float
    limit: float

    @property
    def off(self) -> bool:
        """Whether the node is worse by more than chance explains."""
        return self.badness > self.limit


def mad(values: Sequence[float]) -> float:
    """Return the median absolute deviation from the median, as a standard deviation."""
    each = np.asarray(values, dtype=np.float64)
    return MAD_TO_SIGMA * float(np.median(np.abs(each - np.median(each))))


def spread(values: Sequence[float], assumed: float = NATURAL_SPREAD) -> float:
    """Return the standard deviation by which to judge `values` (logarithms).

    It is `assumed`, moved as little as possible into the confidence interval of the values' own (MAD). With fewer than
    nine values that interval has no upper end: so few cannot show a smaller spread.
    """
    return believed(mad(values), len(values), assumed) if len(values) > 2 else assumed


def believed(own: float, count: int, assumed: float) -> float:
    """Return `assumed`, moved as little as possible into the confidence interval of a spread seen in `count` values."""
    error = MAD_ERROR / math.sqrt(count - 1)
    least = own / (1 + LOWER_Z * error)
    most = own / (1 - UPPER_Z * error) if UPPER_Z * error < 1 else math.inf
    return min(max(assumed, least), max(most, least))


def deviations(
    readings: Sequence[Reading],
    *,
    higher_is_better: bool,
    alpha: float,
    assumed: float = NATURAL_SPREAD,
    least: float = LEAST_CHANGE,
) -> list[Deviation]:
    """Return how far each reading is from the median of the others.

    `alpha`: the probability that any of them exceeds its limit although all are alike; `least`: a smaller change is
    never reported. Values must be above zero, and at least two.
    """
    logs = [math.log(reading.value) for reading in readings]
    expected = medians_of_others(logs)
    sampling = statistics.median(reading.error for reading in readings)
    natural = spread(logs, math.hypot(assumed, sampling))
    others = len(logs) - 1
    # With one other there is one test with two sides; with two, their median is their mean.
    tests = len(logs) if others > 1 else 2
    variance = 1 + (MEDIAN_VARIANCE if others > 2 else 1) / others
    quantile = _quantile(1 - alpha / tests)
    sign = -1 if higher_is_better else 1
    return [
        Deviation(
            expected=math.exp(middle),
            change=math.expm1(log - middle),
            badness=sign * (log - middle),
            # A node with less precise samples than the others must be further off.
            limit=max(
                quantile * math.sqrt(natural**2 * variance + max(0.0, reading.error**2 - sampling**2)),
                math.log1p(least),
            ),
        )
        for log, middle, reading in zip(logs, expected, readings, strict=True)
    ]


def medians_of_others(values: Sequence[float]) -> list[float]:
    """Return, for each value, the median of all the others."""
    order = sorted(range(len(values)), key=values.__getitem__)
    medians = [0.0] * len(values)
    low, high = (len(values) - 2) // 2, (len(values) - 1) // 2
    for rank, number in enumerate(order):
        # The index among the others is one higher among all if this value comes before it.
        middle = (values[order[place + (rank <= place)]] for place in (low, high))
        medians[number] = sum(middle) / 2
    return medians
