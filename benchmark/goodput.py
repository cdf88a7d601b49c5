"""The arithmetic of goodput: what was answered within the limits of TTFT and TPOT, and how many users at once.

Formulas: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmark.columns import ABSENT, Columns, Flags, Floats
from benchmark.metrics import LOADGENS, PERCENTILES, heard, tpots_ms, ttfts_ms
from benchmark.profiles import Limit, Profile
from benchmark.records import MAX_UNSEEN, Goodput, Metrics, Slo

_PARTS = (*PERCENTILES, "max")


def limits_of(profile: Profile, loadgens: dict[str, float] | None = None) -> Slo | None:
    """Return a profile's own limits of TTFT and TPOT; None if it has neither.

    The stricter of its verdict's limits at the highest percentile and LoadGen's (`loadgens`, in milliseconds by
    metric); if there are none, the limits of its sweep in the same way.
    """
    found = dict(loadgens or {})
    _add(found, profile.limits)
    if not found and profile.sweep is not None:
        _add(found, profile.sweep.limits)
    kept = {metric: limit for metric, limit in found.items() if 0 < limit < math.inf}
    return Slo.model_validate(kept) if kept else None


def _add(found: dict[str, float], limits: Sequence[Limit]) -> None:
    own: dict[str, float] = {}
    for limit in limits:
        if limit.at_most is not None:
            own[limit.metric] = min(own.get(limit.metric, math.inf), limit.at_most)
    for metric in ("ttft_ms", "tpot_ms"):
        asked = [own[path] for part in _PARTS if (path := f"{metric}.{part}") in own]
        if asked:
            found[metric] = min(found.get(metric, math.inf), asked[-1])


def goodput(samples: Columns, metrics: Metrics, slo: Slo) -> Goodput | None:
    """Return the goodput of the samples that `metrics` are of; None if it is undefined.

    It is undefined without queries, and if a time with a limit is unknown for more than 1 % of the answers. Fewer
    answers with unknown times count as missed.
    """
    seen = heard(samples) if metrics.times_of == LOADGENS else samples
    planned = metrics.queries.planned
    good = met(seen, slo)
    if good is None or not planned:
        return None
    count = int(np.count_nonzero(good))
    completed, tokens = metrics.queries.completed, metrics.output_tokens
    good_tokens = sum(samples.output_tokens[good].tolist())
    mean, users = in_flight(samples)
    # Shares of the run's own rates, which are LoadGen's if it drove the run.
    return Goodput(
        slo=slo,
        queries=planned,
        met=count,
        share=count / planned,
        qps=metrics.qps * (count / completed) if metrics.qps is not None and completed else None,
        tokens_per_s=metrics.tokens_per_s * (good_tokens / tokens)
        if metrics.tokens_per_s is not None and tokens
        else None,
        in_flight=mean,
        users=users,
    )


def met(samples: Columns, slo: Slo) -> Flags | None:
    """Return which samples completed within all limits; None if that is unknown for too many.

    The limit of TPOT does not apply to an answer of one token.
    """
    good = samples.completed.copy()
    several: Flags = samples.completed & (samples.output_tokens > 1)
    limits: tuple[tuple[float | None, Floats, Flags], ...] = (
        (slo.ttft_ms, ttfts_ms(samples), samples.completed),
        (slo.tpot_ms, tpots_ms(samples), several),
    )
    for limit, times, concerned in limits:
        if limit is None:
            continue
        unseen = concerned & np.isnan(times)
        if np.count_nonzero(unseen) > MAX_UNSEEN * np.count_nonzero(samples.completed):
            return None
        with np.errstate(invalid="ignore"):
            good &= ~concerned | (times <= limit)
    return good


def in_flight(samples: Columns) -> tuple[float | None, int | None]:
    """Return how many queries were in progress between the first one's beginning and the last completion.

    The mean over that time (Little's law: the sum of their latencies over it), and the largest number that was reached
    or exceeded for at least half of it. A query is in progress from its scheduled time until it completes; failed ones,
    whose end is unknown, do not count. None if no time passed.
    """
    done = samples.completed
    begins = np.where(samples.scheduled_ns == ABSENT, samples.issued_ns, samples.scheduled_ns)[done]
    ends = samples.completed_ns[done]
    moments = np.concatenate((begins, ends))
    changes = np.concatenate((np.ones_like(begins), -np.ones_like(ends)))
    order = np.argsort(moments, kind="stable")
    lasted = np.diff(moments[order])
    passed = sum(lasted.tolist())
    if not passed:
        return None, None
    there = np.cumsum(changes[order])[:-1]
    mean = sum((ends - begins).tolist()) / passed
    most_first = np.argsort(-there, kind="stable")
    reached = 0
    for number, time in zip(there[most_first].tolist(), lasted[most_first].tolist(), strict=True):
        reached += time
        if 2 * reached >= passed:
            return mean, number
    return mean, 0
