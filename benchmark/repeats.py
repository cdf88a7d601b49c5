"""Several measurements of one profile: how far they differ, which one is the median, and its result."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmark.curves import enough
from benchmark.records import NodeResult, Spread
from benchmark.verdict import value_of

# Above this a figure is called not stable. Repeats with a spread of 2 %, the natural spread of like nodes, exceed it by
# chance in one of 80 pairs and one of 500 triples.
UNSTABLE_CV = 0.05
# The metrics whose spread is shown, in this order.
SPREAD_OF = (
    *("qps", "tokens_per_s", "latency_ms.p50", "latency_ms.p99", "ttft_ms.p50", "ttft_ms.p99", "tpot_ms.p50"),
    "tpot_ms.p99",
)


def deciding_metric(result: NodeResult) -> str:
    """Return the metric by which the median repeat is chosen: it must depend on the system, not on the schedule.

    Queries per second, or the P50 of latency if a schedule sets these.
    """
    return "latency_ms.p50" if result.resolved.profile.scheduled else "qps"


def median_repeat(values: Sequence[float | None], metric: str) -> int:
    """Return the number, from 1, of the repeat with the median value; of two middle ones the worse.

    A repeat without a value is worse than all others; of equal ones the first is chosen.
    """
    more_is_better = metric == "qps"

    def goodness(number: int) -> tuple[bool, float]:
        value = values[number]
        return value is not None, (value if more_is_better else -value) if value is not None else 0.0

    worst_first = sorted(range(len(values)), key=goodness)
    middle = goodness(worst_first[(len(values) - 1) // 2])
    return 1 + next(number for number in range(len(values)) if goodness(number) == middle)


def spread_of(metric: str, values: Sequence[float | None]) -> Spread | None:
    """Return how far the repeats' values of a metric differ; None for fewer than two, or if one is undefined."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or len(known) < len(values):
        return None
    # Divided first, so that squares of large values do not overflow; figures are never negative.
    largest = max(known)
    parts = [value / largest for value in known] if largest > 0 else [1.0] * len(known)
    cv = statistics.stdev(parts) / statistics.fmean(parts)
    return Spread(
        metric=metric,
        values=tuple(known),
        median=statistics.median(known),
        lowest=min(known),
        highest=largest,
        cv=cv,
        stable=cv <= UNSTABLE_CV,
    )


def spreads(value: Callable[[int, str], float | None], repeats: int) -> tuple[Spread, ...]:
    """Return the spread of every figure that all repeats have; `value`: repeat number, metric -> value."""
    each = (spread_of(metric, [value(number, metric) for number in range(1, repeats + 1)]) for metric in SPREAD_OF)
    return tuple(one for one in each if one is not None)


def repeat_of(result: NodeResult, number: int) -> NodeResult:
    """Return the result as if that repeat, from 1, were its only measurement."""
    if number == 1:
        return result.model_copy(update={"repeats": ()})
    repeat = result.repeats[number - 2]
    fields = {name: getattr(repeat, name) for name in type(repeat).model_fields if name not in ("number", "load")}
    fields["load"] = repeat.load or result.load
    return result.model_copy(update={"repeats": (), **fields})


def own_choice(result: NodeResult) -> int:
    """Return this node's own median repeat; for a sweep, the first step with nearly the highest tokens/s."""
    each = [result.metrics, *(repeat.metrics for repeat in result.repeats)]
    if (sweep := result.resolved.profile.sweep) is not None:
        rates = [metrics.tokens_per_s if metrics else None for metrics in each]
        return int(enough(range(1, len(each) + 1), rates, sweep.least_growth) or 1)
    metric = deciding_metric(result)
    return median_repeat([value_of(metrics, metric) if metrics else None for metrics in each], metric)
