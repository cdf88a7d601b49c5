"""The arithmetic of a curve: one figure at each load, and what follows from them.

It works on plain figures. A load is in the ladder's unit: queries in flight on each GPU, or a share of the rate that a
burst reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from benchmark.profiles import Limit
from benchmark.records import Crossing


def keeps(limit: Limit, value: float | None) -> bool:
    """Return whether a figure meets a limit; an undefined one does not."""
    if value is None:
        return False
    return value <= limit.at_most if limit.at_most is not None else value >= (limit.at_least or 0.0)


def front(points: Sequence[tuple[float | None, float | None]]) -> list[bool]:
    """Return which points are on the Pareto front: no other is at least as good in both figures and better in one.

    A point that lacks a figure is not on it. Equal points all are.
    """

    def beaten(x: float, y: float) -> bool:
        return any(a is not None and b is not None and a >= x and b >= y and (a > x or b > y) for a, b in points)

    return [x is not None and y is not None and not beaten(x, y) for x, y in points]


def knee(loads: Sequence[float], rates: Sequence[float | None], least_growth: float) -> float | None:
    """Return the load at which queries begin to wait for each other, from the rates in a closed loop.

    It is where two upper bounds meet: the line through the first step, on which each query is answered as fast as in
    that step, and the highest rate. None if the rate still grew by more than `least_growth` at the last step, or if
    there are fewer than two steps.
    """
    known = [(load, rate) for load, rate in zip(loads, rates, strict=True) if rate]
    if len(known) < 2 or known[-1][1] >= max(rate for _, rate in known[:-1]) * (1 + least_growth):
        return None
    (first, slowest), highest = known[0], max(rate for _, rate in known)
    return first * highest / slowest


def enough(loads: Sequence[float], rates: Sequence[float | None], least_growth: float) -> float | None:
    """Return the lowest load whose rate is within `least_growth` of the highest; None without rates."""
    known = [(load, rate) for load, rate in zip(loads, rates, strict=True) if rate is not None]
    highest = max((rate for _, rate in known), default=0.0)
    return next((load for load, rate in known if rate * (1 + least_growth) >= highest), None)


def crossing(limit: Limit, loads: Sequence[float], values: Sequence[float | None]) -> Crossing:
    """Return where a limit is first exceeded, from a metric's value at each load, in ascending order."""
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
    """Return y at x by linear interpolation between a curve's points, in their order; of several values the highest.

    None if the curve does not reach x: there is no extrapolation.
    """
    known = [(a, b) for a, b in curve if a is not None and b is not None]
    found = [b for a, b in known if a == x]
    for (a, b), (c, d) in pairwise(known):
        if min(a, c) < x < max(a, c):
            found.append(b + (d - b) * (x - a) / (c - a))
    return max(found, default=None)
