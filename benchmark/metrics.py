"""Compute metrics from samples. Formulas, units and clocks: docs/metrics.md."""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import numpy as np

from benchmark.columns import ABSENT, Columns, Flags, Floats, Ints
from benchmark.records import (
    MAX_UNSEEN,
    TOKENS_PER_PIECE,
    AnswerCounts,
    Distribution,
    LoadGenResult,
    Metrics,
    QueryCounts,
)

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
CONFIDENCE = 0.99
NS_PER_MS = 1e6
NS_PER_S = 1e9


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the percentile of values in ascending order by nearest rank, as MLPerf LoadGen does.

    LoadGen takes the element at index floor(n * fraction), counted from 0: the smallest value that more than
    n * fraction of the values do not exceed. Raises ValueError if there is no value or `fraction` is not in [0, 1).
    """
    if not ordered:
        raise ValueError("a percentile of no values is undefined")
    if not 0 <= fraction < 1:
        raise ValueError("a percentile's fraction must be in [0, 1)")
    return ordered[int(len(ordered) * fraction)]


def samples_needed(fraction: float, confidence: float = CONFIDENCE) -> int:
    """Return how many samples a percentile needs.

    The smallest n for which at least two of n samples are beyond the percentile with the given confidence
    (11 for P50, 64 for P90, 662 for P99 at 99 %).
    """
    beyond = 1 - fraction
    n = 2
    while fraction**n + n * beyond * fraction ** (n - 1) > 1 - confidence:
        n += 1
    return n


SAMPLES_NEEDED = {name: samples_needed(fraction) for name, fraction in PERCENTILES.items()}


def distribution(values: Sequence[float] | Floats) -> Distribution | None:
    """Return the distribution of `values` (milliseconds), or None if there are none."""
    ordered: list[float] = np.sort(np.asarray(values, dtype=np.float64)).tolist()
    return pooled_distribution([ordered])


def pooled_distribution(ordered: Sequence[Sequence[float]]) -> Distribution | None:
    """Return the distribution of the values of all sequences, each in ascending order, without merging them.

    Equal to `distribution` of all values, to the last bit; None if there are none.
    """
    filled = [values for values in ordered if values]
    if not filled:
        return None
    count = sum(map(len, filled))
    return Distribution(
        count=count,
        mean=math.fsum(chain.from_iterable(filled)) / count,
        min=min(values[0] for values in filled),
        max=max(values[-1] for values in filled),
        **{name: _at_rank(filled, int(count * fraction)) for name, fraction in PERCENTILES.items()},
        insufficient={name: needed for name, needed in SAMPLES_NEEDED.items() if count < needed},
    )


def _at_rank(ordered: Sequence[Sequence[float]], rank: int) -> float:
    """Return the value at index `rank`, from 0, of the sequences merged in ascending order.

    It is the smallest double that more than `rank` values do not exceed, found by bisection over the bit patterns of
    doubles: 64 steps, whatever the number of values.
    """
    if len(ordered) == 1:
        return ordered[0][rank]
    low, high = _bits(min(values[0] for values in ordered)), _bits(max(values[-1] for values in ordered))
    while low < high:
        middle = (low + high) // 2
        value = _double(middle)
        if sum(bisect_right(values, value) for values in ordered) > rank:
            high = middle
        else:
            low = middle + 1
    return _double(low)


_SIGN = 1 << 63


def _bits(value: float) -> int:
    """Return a whole number for a double that preserves order."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits) if bits < _SIGN else -int(bits - _SIGN)


def _double(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits if bits >= 0 else _SIGN - bits))
    return float(value)


def latencies_ms(samples: Columns) -> Floats:
    """Return completed minus scheduled of every sample, in milliseconds; NaN if it lacks one of them."""
    return _between(samples.scheduled_ns, samples.completed_ns)


def ttfts_ms(samples: Columns) -> Floats:
    """Return first token minus scheduled of every completed sample, in milliseconds; NaN for others.

    Also NaN if the first token did not arrive before the last, and for all samples if that is so for too many.
    """
    return _first_seen(samples, _between(samples.scheduled_ns, samples.first_token_ns))


def ttfts_from_issue_ms(samples: Columns) -> Floats:
    """Return first token minus issued of every completed sample, in milliseconds, with the same NaN."""
    return _first_seen(samples, _between(samples.issued_ns, samples.first_token_ns))


def tpots_ms(samples: Columns) -> Floats:
    """Return the time per output token after the first, in milliseconds; NaN for samples of one token or of none.

    Also NaN if the tokens did not arrive one by one, and for all samples if that is so for too many.
    """
    unseen = in_one_piece(samples) | coarse(samples)
    reported = samples.completed & (samples.first_token_ns != ABSENT) & (samples.output_tokens > 1) & ~unseen
    if _too_many(samples, unseen):
        reported = np.zeros_like(reported)
    spans_ns = samples.completed_ns - samples.first_token_ns
    each = np.full(len(samples), np.nan)
    # Only Python divides whole numbers of any size exactly.
    pairs = zip(spans_ns[reported].tolist(), samples.output_tokens[reported].tolist(), strict=True)
    each[reported] = [span_ns / (tokens - 1) / NS_PER_MS for span_ns, tokens in pairs]
    return each


def in_one_piece(samples: Columns) -> Flags:
    """Return which completed samples have several tokens that all arrived in one piece."""
    few: Flags = samples.completed & (samples.pieces != ABSENT) & (samples.pieces < 2) & (samples.output_tokens > 1)
    return few


def coarse(samples: Columns) -> Flags:
    """Return which completed samples arrived in several pieces of too many tokens on average.

    Not those whose first piece was one token: the times of the first and the last are then known, and TPOT needs no
    others.
    """
    several: Flags = samples.completed & (samples.pieces > 1) & (samples.first_piece_tokens != 1)
    return several & (samples.output_tokens > TOKENS_PER_PIECE * samples.pieces)


def _first_seen(samples: Columns, values: Floats) -> Floats:
    unseen = in_one_piece(samples)
    if _too_many(samples, unseen):
        return np.full(len(samples), np.nan)
    return np.where(samples.completed & ~unseen, values, np.nan)


def _too_many(samples: Columns, unseen: Flags) -> bool:
    return bool(np.count_nonzero(unseen) > MAX_UNSEEN * np.count_nonzero(samples.completed))


def _answers(samples: Columns, min_tokens: int) -> AnswerCounts:
    differ = samples.completed & (samples.usage_tokens != ABSENT)
    # Either source may have lost some.
    most = np.maximum(samples.output_tokens, samples.usage_tokens)
    pairs = zip(samples.output_tokens[differ].tolist(), samples.usage_tokens[differ].tolist(), strict=True)
    return AnswerCounts(
        one_piece=int(np.count_nonzero(in_one_piece(samples))),
        coarse=int(np.count_nonzero(coarse(samples))),
        short=int(np.count_nonzero(samples.completed & (most < np.maximum(samples.asked_tokens, min_tokens)))),
        miscounted=int(np.count_nonzero(differ)),
        miscounted_tokens=sum(abs(one - other) for one, other in pairs),
    )


def heard(samples: Columns) -> Columns:
    """Return the samples as LoadGen saw them: a token arrived when it had been reported to LoadGen."""
    return replace(
        samples,
        first_token_ns=np.where(samples.first_reported_ns == ABSENT, samples.first_token_ns, samples.first_reported_ns),
        completed_ns=np.where(samples.reported_ns == ABSENT, samples.completed_ns, samples.reported_ns),
    )


def defined(values: Floats) -> Floats:
    """Return the values that are not NaN, in their order."""
    return values[~np.isnan(values)]


def _between(earlier_ns: Ints, later_ns: Ints) -> Floats:
    reported = (earlier_ns != ABSENT) & (later_ns != ABSENT)
    return np.where(reported, (later_ns - earlier_ns) / NS_PER_MS, np.nan)


# LoadGen's own names for its queries and tokens per second, by scenario.
_LOADGEN_RATES = {
    "Server": ("result_completed_samples_per_sec", "result_completed_tokens_per_second"),
    "Offline": ("result_samples_per_second", "result_tokens_per_second"),
    "SingleStream": ("result_qps_with_loadgen_overhead", "result_token_throughput_with_loadgen_overhead"),
}


def issued(samples: Columns) -> int:
    """Return how many queries were issued: the planned number if the scenario decides it itself."""
    return int(samples.index.max(initial=-1)) + 1


# LoadGen's own names for a distribution's parts, in nanoseconds, by metric. It reports the first token and the time per
# token only in scenarios in which the first token is reported to it.
_LOADGEN_TIMES = {
    "latency_ms": ("result_{}_percentile_latency_ns", "result_{}_latency_ns"),
    "ttft_ms": ("result_first_token_{}_percentile_latency_ns", "result_first_token_{}_latency_ns"),
    "tpot_ms": ("result_time_per_output_token_{}_percentile_ns", "result_time_to_output_token_{}"),
}
OWN: Literal["samples"] = "samples"
LOADGENS: Literal["LoadGen"] = "LoadGen"
TimesOf = Literal["samples", "LoadGen"]


def compute(
    samples: Columns,
    planned: int,
    loadgen: LoadGenResult | None = None,
    min_tokens: int = 0,
    times_of: TimesOf = LOADGENS,
) -> Metrics:
    """Return the metrics of `samples`; `planned`: their planned number; `min_tokens`: the least tokens of each.

    Queries and tokens per second are LoadGen's own if it drove the run, and so are latency, TTFT and TPOT if it reports
    them and `times_of` does not select the samples'. Raises ValueError if two samples have the same index or one is
    beyond the planned number.
    """
    if (np.diff(np.sort(samples.index)) == 0).any():
        raise ValueError("two samples have the same index")
    if len(beyond := samples.index[samples.index >= planned]):
        raise ValueError(f"a sample with index {beyond[0]} where {planned} were planned")
    done = samples.completed
    completed = int(np.count_nonzero(done))
    duration_s = qps = tokens_per_s = None
    # In Python, whose sums do not overflow.
    output_tokens = sum(samples.output_tokens[done].tolist())
    if completed:
        elapsed = int(samples.completed_ns.max()) - int(samples.issued_ns.min())
        if elapsed > 0:
            duration_s = elapsed / NS_PER_S
            qps = completed / duration_s
            tokens_per_s = output_tokens / duration_s
    if loadgen is not None:
        qps, tokens_per_s = (_figure(loadgen, name) for name in _LOADGEN_RATES[loadgen.scenario])

    def spread(values: Floats) -> Distribution | None:
        return distribution(defined(values))

    times = {
        "latency_ms": spread(latencies_ms(samples)),
        "ttft_ms": spread(ttfts_ms(samples)),
        "tpot_ms": spread(tpots_ms(samples)),
    }
    if loadgen is None:
        times_of = OWN
    if loadgen is not None and times_of == LOADGENS:
        times = {name: _loadgens(loadgen, name, own) for name, own in times.items()}
    return Metrics(
        times_of=times_of,
        queries=QueryCounts(
            planned=planned,
            completed=completed,
            failed=len(samples) - completed,
            unfinished=planned - len(samples),
        ),
        answers=_answers(samples, min_tokens),
        duration_s=duration_s,
        qps=qps,
        input_tokens=sum(samples.input_tokens[done].tolist()),
        output_tokens=output_tokens,
        tokens_per_s=tokens_per_s,
        latency_from_issue_ms=spread(_between(samples.issued_ns, samples.completed_ns)),
        ttft_from_issue_ms=spread(ttfts_from_issue_ms(samples)),
        issue_delay_ms=spread(_between(samples.scheduled_ns, samples.issued_ns)),
        first_report_delay_ms=spread(_between(samples.first_token_ns, samples.first_reported_ns)),
        report_delay_ms=spread(_between(samples.completed_ns, samples.reported_ns)),
        **times,
    )


def _loadgens(loadgen: LoadGenResult, name: str, own: Distribution | None) -> Distribution | None:
    """Return a time's distribution with LoadGen's figures instead of ours.

    Ours stays if LoadGen lacks some of them, or has computed the time per token of answers without a second token,
    which it logs as errors. Undefined values stay undefined: LoadGen does not know which token times are unknown.
    """
    if own is None or (name == "tpot_ms" and loadgen.errors):
        return own
    percentile_key, other_key = _LOADGEN_TIMES[name]
    keys = {part: percentile_key.format(f"{100 * share:.2f}") for part, share in PERCENTILES.items()}
    keys |= {part: other_key.format(part) for part in ("mean", "min", "max")}
    found = {part: _figure(loadgen, key) for part, key in keys.items()}
    theirs = {part: value / NS_PER_MS for part, value in found.items() if value is not None}
    return own.model_copy(update=theirs) if len(theirs) == len(found) else own


def _figure(loadgen: LoadGenResult, name: str) -> float | None:
    value = loadgen.results.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def per_joule(joules: float, metrics: Iterable[Metrics]) -> dict[str, float | None]:
    """Return `tokens_per_joule` and `joules_per_query`, of output tokens and completed queries; None: undefined."""
    each = list(metrics)
    tokens, queries = sum(one.output_tokens for one in each), sum(one.queries.completed for one in each)
    return {
        "tokens_per_joule": tokens / joules if joules > 0 and tokens else None,
        "joules_per_query": joules / queries if queries else None,
    }
