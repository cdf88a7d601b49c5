"""Compare two curves of a sweep: tokens/s of a GPU at equal tokens/s per user, with intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

from benchmark.cluster.comparison.bootstrap import CONFIDENCE, SEED, Draw, inflation, percentile_draw, rate_draw
from benchmark.cluster.comparison.measured import judged
from benchmark.cluster.results.load import LoadedNode, Measurement
from benchmark.cluster.sweep import place_of, point_of, steps_of
from benchmark.curves import between
from benchmark.metrics import PERCENTILES, SAMPLES_NEEDED
from benchmark.records import CurveChange

# Most points of the curves that are compared, at round numbers of tokens/s per user.
MOST_PLACES = 4
ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
REPLICATES, LEAST_REPLICATES = 400, 200
# Steps of nodes times replicates.
MOST_DRAWS = 20_000
# A point that this share of replicates does not reach is at the end of the curve, and has no interval.
MOST_MISSED = 0.05

Point = tuple[float | None, float | None]
"""Tokens/s of a user, and of a GPU."""


def curve_changes(before: Sequence[LoadedNode], after: Sequence[LoadedNode], floor: float) -> Iterator[CurveChange]:
    """Yield the changes at some points that both curves reach; nothing if one side has no curve."""
    sides = [[*_steps(nodes)] for nodes in (before, after)]
    curves = [[_point(measured) for measured in steps] for steps in sides]
    places = shared_places(*curves)
    if not places:
        return
    draws = sum(len(measured) for steps in sides for measured in steps)
    replicates = max(LEAST_REPLICATES, min(REPLICATES, MOST_DRAWS // draws))
    chance = random.Random(SEED)  # noqa: S311 # chance, not a secret
    drawn = [_drawn(steps, chance, replicates) for steps in sides]
    per = place_of([*before, *after])
    for place in places:
        was, now = (between(curve, place) for curve in curves)
        if was is not None and now is not None:
            yield _change(place, was, now, drawn, floor).model_copy(update={"per": per})


def shared_places(before: Sequence[Point], after: Sequence[Point]) -> list[float]:
    """Return round numbers of tokens/s per user that both curves reach, evenly spaced, ascending."""
    known = [[x for x, y in curve if x is not None and y is not None] for curve in (before, after)]
    if not all(known):
        return []
    low, high = max(map(min, known)), min(map(max, known))
    if not 0 < low < high:
        return []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**power for power in powers for digit in ROUND if low <= digit * 10.0**power <= high]
    step = max(1, math.ceil(len(found) / MOST_PLACES))
    return found[::step]


def _change(
    place: float, was: float, now: float, drawn: Sequence[Sequence[Sequence[Point]]], floor: float
) -> CurveChange:
    pairs = [(between(one, place), between(other, place)) for one, other in zip(*drawn, strict=True)]
    logs = sorted(math.log(other / one) for one, other in pairs if one and other)
    change = now / was - 1
    fields = {"tokens_per_s_per_user": place, "before": was, "after": now, "change": change}
    if len(logs) < (1 - MOST_MISSED) * len(pairs) or not logs:
        note = "at an end of the curves, or too few samples"
        return CurveChange.model_validate({**fields, "outcome": "not judged", "note": note})
    tail = (1 - CONFIDENCE) / 2
    low = math.expm1(logs[int(tail * len(logs))])
    high = math.expm1(logs[min(math.ceil((1 - tail) * len(logs)), len(logs)) - 1])
    outcome = judged(change, low, high, floor, higher_is_better=True)
    return CurveChange.model_validate({**fields, "low": low, "high": high, "outcome": outcome})


def _steps(nodes: Sequence[LoadedNode]) -> Iterator[list[Measurement]]:
    """Yield the steps that all nodes have, lowest load first."""
    each = [steps_of(node) for node in nodes]
    for step in each[0] if each else ():
        if all(step in steps for steps in each):
            yield [steps[step] for steps in each]


def _point(measured: Sequence[Measurement]) -> Point:
    point = point_of(0, measured)
    return point.tokens_per_s_per_user, point.tokens_per_s_per_gpu


def _drawn(steps: Sequence[Sequence[Measurement]], chance: random.Random, replicates: int) -> list[list[Point]]:
    drawers = [_drawer(measured) for measured in steps]
    return [[draw(chance) for draw in drawers] for _ in range(replicates)]


def _drawer(measured: Sequence[Measurement]) -> Callable[[random.Random], Point]:
    """Return a function that redraws a step's point: its rate from pieces of the nodes' time, its TPOT from samples."""
    point = point_of(0, measured)
    ordered = sorted(value for one in measured for value in one.times.tpot_ms)
    rates = [_rate(one) for one in measured]
    known = [one for one in rates if one is not None]
    if point.tokens_per_s_per_gpu is None or point.tokens_per_s_per_user is None or len(known) < len(rates):
        return lambda chance: (None, None)
    if len(ordered) < SAMPLES_NEEDED["p50"]:
        return lambda chance: (None, None)
    middle_ms = 1000 / point.tokens_per_s_per_user
    more = math.fsum(inflation(one.times.tpot_ms, middle_ms) * len(one.times.tpot_ms) for one in measured)
    tpot = percentile_draw(ordered, PERCENTILES["p50"], more / len(ordered))
    of_gpu, whole = point.tokens_per_s_per_gpu, math.fsum(middle for _, middle in known)

    def draw(chance: random.Random) -> Point:
        return 1000 / tpot(chance), of_gpu * math.fsum(one(chance) for one, _ in known) / whole

    return draw


def _rate(one: Measurement) -> tuple[Draw, float] | None:
    times = one.times
    order = sorted(range(len(times.ended_s)), key=times.ended_s.__getitem__)
    draw = rate_draw([times.ended_s[number] for number in order], [times.tokens[number] for number in order])
    middle = math.fsum(times.tokens) / max(times.ended_s, default=0.0) if draw else 0.0
    return (draw, middle) if draw and middle > 0 else None
