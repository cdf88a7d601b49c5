"""How much a figure would vary if the run were repeated: the bootstrap, without drawing every sample.

A percentile's bootstrap distribution is known: the k-th smallest of n values drawn from n is the value at the quantile
given by the k-th smallest of n uniform numbers, which has a Beta distribution. So a replicate costs one random number,
whatever n is. Correlated neighbouring samples (a queue, a warm GPU) carry less information than independent ones: n is
reduced to the equivalent number. Formulas: docs/metrics.md, Comparing runs.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence

REPLICATES = 2000
CONFIDENCE = 0.99
SEED = 20261124
# Number of batches for measuring the correlation of neighbours, and the least values in each.
BATCHES = 40
MIN_IN_BATCH = 10
# A run's time is cut into this many pieces, which are drawn as a whole; with fewer queries, each is a piece.
BLOCKS = 40

# Largest logarithm by which a replicate of repeats may differ: beyond any interval shown, and without overflow.
MOST_LOG = 20.0

Draw = Callable[[random.Random], float]
"""One replicate of a figure."""


def percentile_draw(ordered: Sequence[float], fraction: float, inflation: float = 1.0) -> Draw:
    """Return a function that redraws the percentile of `ordered` (ascending), by nearest rank like MLPerf LoadGen.

    `inflation`: how much larger its variance is than that of as many independent values.
    """
    count = max(2, int(len(ordered) / inflation))
    rank = min(int(count * fraction), count - 1)

    def draw(chance: random.Random) -> float:
        place = chance.betavariate(rank + 1, count - rank)
        return ordered[min(int(place * len(ordered)), len(ordered) - 1)]

    return draw


def inflation(values: Sequence[float], at: float) -> float:
    """Return how much larger the variance of the share of `values` above `at` is than for independent values.

    `values`: in order of arrival. At least 1, and 1 for few values.
    """
    size = len(values) // BATCHES
    if size < MIN_IN_BATCH:
        return 1.0
    above = [value > at for value in values[: size * BATCHES]]
    share = sum(above) / len(above)
    if not 0 < share < 1:
        return 1.0
    batches = [sum(above[start : start + size]) / size for start in range(0, len(above), size)]
    return min(max(1.0, size * statistics.pvariance(batches) / (share * (1 - share))), float(size))


def rate_draw(ended_s: Sequence[float], amounts: Sequence[float]) -> Draw | None:
    """Return a function that redraws amount per second; `ended_s`: ascending from the first issue. None: too few data.

    Pieces of the run's time are drawn, each with what ended in it.
    """
    if len(ended_s) < 2 or ended_s[-1] <= 0:
        return None
    size = max(1, len(ended_s) // BLOCKS)
    cuts = list(range(0, len(ended_s), size))
    if len(cuts) > 1 and len(ended_s) - cuts[-1] < size:
        cuts.pop()  # the remainder belongs to the last piece
    edges = [*cuts[1:], len(ended_s)]
    # Amount and seconds as one complex number, so that one call sums both.
    pieces = [
        complex(math.fsum(amounts[start:end]), ended_s[end - 1] - (ended_s[start - 1] if start else 0.0))
        for start, end in zip(cuts, edges, strict=True)
    ]
    # A few pieces vary less than the population they are from.
    widen = math.sqrt(len(pieces) / (len(pieces) - 1)) if len(pieces) > 1 else 1.0
    whole = sum(pieces)
    middle = whole.real / whole.imag

    def draw(chance: random.Random) -> float:
        drawn = sum(chance.choices(pieces, k=len(pieces)))
        rate = drawn.real / drawn.imag if drawn.imag > 0 else middle
        return middle * (rate / middle) ** widen if rate > 0 else middle

    return draw


def repeats_draw(values: Sequence[float]) -> Draw:
    """Return a function that redraws the geometric mean of some repeats' values (all above zero).

    Resampling a few repeats varies too little: the mean of n logarithms, over its standard error, has Student's
    t-distribution with n - 1 degrees of freedom, and is drawn from that.
    """
    logs = [math.log(value) for value in values]
    middle, freedom = statistics.fmean(logs), len(logs) - 1
    error = statistics.stdev(logs) / math.sqrt(len(logs))

    def draw(chance: random.Random) -> float:
        student = chance.gauss(0, 1) / math.sqrt(chance.gammavariate(freedom / 2, 2) / freedom)
        return math.exp(middle + max(-MOST_LOG, min(MOST_LOG, error * student)))

    return draw


def interval_of_change(before: Draw, after: Draw, replicates: int = REPLICATES) -> tuple[float, float]:
    """Return the 99 % confidence interval of the change (after / before - 1), with a fixed seed."""
    chance = random.Random(SEED)  # noqa: S311 # chance, not a secret
    logs = sorted(math.log(after(chance) / before(chance)) for _ in range(replicates))
    tail = (1 - CONFIDENCE) / 2
    low = logs[int(tail * replicates)]
    high = logs[min(math.ceil((1 - tail) * replicates), replicates) - 1]
    return math.expm1(low), math.expm1(high)
