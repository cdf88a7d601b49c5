"""The arithmetic of a curve: one figure at each load, and what they say together.

Of figures alone, whoever measured them. A load is what the ladder calls it: queries in flight on each GPU, or a share
of the rate that a burst reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from benchmark.profiles import Limit
from benchmark.records import Crossing


def keeps(limit: Limit, value: float | None) -> bool:
    """Return whether a figure keeps a limit; what is undefined does not."""
    if value is None:
        return False
    return value <= limit.at_most if limit.at_most is not None else value >= (limit.at_least or 0.0)


def front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Return which points no other is at least as good as in both figures and better in one: the Pareto front.

    A point that lacks a figure is not on it. Of equal points all are.
    """

    def beaten(x: float, y: float) -> bool:
        return any(a is not None and b is not None and a >= x and b >= y and (a > x or b > y) for a, b in points)

    return [x is not None and y is not None and not beaten(x, y) for x, y in points]


def knee(loads: Sequence[float], rates: Sequence[float | None], least_growth: float) -> float | None:
    """Return the load at which queries begin to wait for each other, of rates that were reached in a closed loop.

    It is where two lines meet that no system exceeds: the one through the first step, on which each query is answered
    as fast as the first few were, and the highest rate. None where the rate still grew at the last step by more than
    `least_growth`, or where there are no two steps.
    """
    known = [(load, rate) for load, rate in zip(loads, rates, strict=True) if rate]
    if len(known) < 2 or known[-1][1] >= max(rate for _, rate in known[:-1]) * (1 + least_growth):
        return None
    (first, slowest), highest = known[0], max(rate for _, rate in known)
    return first * highest / slowest


def enough(loads: Sequence[float], rates: Sequence[float | None], least_growth: float) -> float | None:
    """Return the least load whose rate comes within `least_growth` of the highest; None where there is no rate."""
    known = [(load, rate) for load, rate in zip(loads, rates, strict=True) if rate is not None]
    highest = max((rate for _, rate in known), default=0.0)
    return next((load for load, rate in known if rate * (1 + least_growth) >= highest), None)


def crossing(limit: Limit, loads: Sequence[float], values: Sequence[float | None]) -> Crossing:
    """Return where a limit is passed first, from a metric's value at each load, in ascending order."""
    bound = limit.at_most if limit.at_most is not None else limit.at_least or 0.0
    known = [(load, value) for load, value in zip(loads, values, strict=True) if value is not None]
    beyond = next((number for number, (_, value) in enumerate(known) if not keeps(limit, value)), None)
    before = known[-1:] if beyond is None else known[max(0, beyond - 1) : beyond]
    at = None
    if beyond and before:
        (low, below), (high, above) = before[0], known[beyond]
        at = low + (high - low) * (bound - below) / (above - below)
    return Crossing(
        metric=limit.metric,
        limit=bound,
        within=before[0][0] if before else None,
        beyond=None if beyond is None else known[beyond][0],
        at=at,
    )


def between(curve: Sequence[tuple[float | None, float | None]], x: float) -> float | None:
    """Return y at x on the straight lines through a curve's points, in their order; of several the highest.

    None where the curve does not reach x: nothing is said beyond what was measured.
    """
    known = [(a, b) for a, b in curve if a is not None and b is not None]
    found = [b for a, b in known if a == x]
    for (a, b), (c, d) in pairwise(known):
        if min(a, c) < x < max(a, c):
            found.append(b + (d - b) * (x - a) / (c - a))
    return max(found, default=None)
