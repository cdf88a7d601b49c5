"""From samples to metrics. Formulas, units and clocks: docs/metrics.md."""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain

from benchmark.records import Distribution, LoadGenResult, Metrics, QueryCounts, Sample

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
CONFIDENCE = 0.99
NS_PER_MS = 1e6
NS_PER_S = 1e9


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the percentile of values in ascending order by nearest rank, as MLPerf LoadGen does.

    LoadGen takes the element at index floor(n * fraction), counted from 0: the smallest value that more than
    n * fraction of the values do not exceed. Raises ValueError where there is no value or `fraction` is not in [0, 1).
    """
    if not ordered:
        raise ValueError("a percentile of no values is undefined")
    if not 0 <= fraction < 1:
        raise ValueError("a percentile's fraction lies in [0, 1)")
    return ordered[int(len(ordered) * fraction)]


def samples_needed(fraction: float, confidence: float = CONFIDENCE) -> int:
    """Return how many samples a percentile needs.

    The smallest n for which at least two of n samples lie beyond the percentile with the given confidence
    (11 for P50, 64 for P90, 662 for P99 at 99 %).
    """
    beyond = 1 - fraction
    n = 2
    while fraction**n + n * beyond * fraction ** (n - 1) > 1 - confidence:
        n += 1
    return n


SAMPLES_NEEDED = {name: samples_needed(fraction) for name, fraction in PERCENTILES.items()}


def distribution(values: Iterable[float]) -> Distribution | None:
    """Return the distribution of `values` (milliseconds), or None where there are none."""
    ordered = sorted(values)
    return pooled_distribution([ordered]) if ordered else None


def pooled_distribution(ordered: Sequence[Sequence[float]]) -> Distribution | None:
    """Return the distribution of the values of all sequences, each in ascending order, without merging them.

    The same as `distribution` of all values, to the last bit; None where there are none.
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
    """Return the value at index `rank`, from 0, of what the sequences would be in one ascending order.

    It is the smallest double that more than `rank` values do not exceed. Doubles are searched by halves, in the order
    in which their bits can be counted: 64 steps, whatever the number of values.
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
    """Return a whole number for a double, in the same order."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits) if bits < _SIGN else -int(bits - _SIGN)


def _double(bits: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits if bits >= 0 else _SIGN - bits))
    return float(value)


def latencies_ms(samples: Iterable[Sample]) -> list[float]:
    """Return completed minus scheduled of every completed sample, in milliseconds."""
    return [
        (s.completed_ns - s.scheduled_ns) / NS_PER_MS
        for s in samples
        if s.completed_ns is not None and s.scheduled_ns is not None
    ]


def ttfts_ms(samples: Iterable[Sample]) -> list[float]:
    """Return first token minus scheduled of every completed sample that has a token, in milliseconds."""
    return [
        (s.first_token_ns - s.scheduled_ns) / NS_PER_MS
        for s in samples
        if s.completed_ns is not None and s.first_token_ns is not None and s.scheduled_ns is not None
    ]


def tpots_ms(samples: Iterable[Sample]) -> list[float]:
    """Return the time per output token after the first, in milliseconds; samples of one token have none."""
    return [
        (s.completed_ns - s.first_token_ns) / (s.output_tokens - 1) / NS_PER_MS
        for s in samples
        if s.completed_ns is not None and s.first_token_ns is not None and s.output_tokens > 1
    ]


# LoadGen's own names for its queries and tokens per second, by scenario.
_LOADGEN_RATES = {
    "Server": ("result_completed_samples_per_sec", "result_completed_tokens_per_second"),
    "Offline": ("result_samples_per_second", "result_tokens_per_second"),
    "SingleStream": ("result_qps_with_loadgen_overhead", "result_token_throughput_with_loadgen_overhead"),
}


def issued(samples: Sequence[Sample]) -> int:
    """Return how many queries must have been issued: what was planned, where the scenario decides that itself."""
    return max((s.index for s in samples), default=-1) + 1


def compute(samples: Sequence[Sample], planned: int, loadgen: LoadGenResult | None = None) -> Metrics:
    """Return the metrics of `samples`, of which `planned` were meant to be.

    Queries and tokens per second are LoadGen's own where it drove the run. Raises ValueError where two samples have
    the same index or one lies beyond what was planned.
    """
    if len({s.index for s in samples}) != len(samples):
        raise ValueError("two samples have the same index")
    if beyond := [s.index for s in samples if s.index >= planned]:
        raise ValueError(f"a sample with index {beyond[0]} where {planned} were planned")
    done = [s for s in samples if s.completed_ns is not None]
    failed = len(samples) - len(done)
    duration_s = qps = tokens_per_s = None
    output_tokens = sum(s.output_tokens for s in done)
    if done:
        elapsed = max(s.completed_ns or 0 for s in done) - min(s.issued_ns for s in samples)
        if elapsed > 0:
            duration_s = elapsed / NS_PER_S
            qps = len(done) / duration_s
            tokens_per_s = output_tokens / duration_s
    if loadgen is not None:
        qps, tokens_per_s = (_figure(loadgen, name) for name in _LOADGEN_RATES[loadgen.scenario])
    return Metrics(
        queries=QueryCounts(planned=planned, completed=len(done), failed=failed, unfinished=planned - len(samples)),
        duration_s=duration_s,
        qps=qps,
        input_tokens=sum(s.input_tokens for s in done),
        output_tokens=output_tokens,
        tokens_per_s=tokens_per_s,
        latency_ms=distribution(latencies_ms(done)),
        latency_from_issue_ms=distribution(((s.completed_ns or 0) - s.issued_ns) / NS_PER_MS for s in done),
        ttft_ms=distribution(ttfts_ms(done)),
        ttft_from_issue_ms=distribution(
            (s.first_token_ns - s.issued_ns) / NS_PER_MS for s in done if s.first_token_ns is not None
        ),
        tpot_ms=distribution(tpots_ms(done)),
        issue_delay_ms=distribution(
            (s.issued_ns - s.scheduled_ns) / NS_PER_MS for s in samples if s.scheduled_ns is not None
        ),
        report_delay_ms=distribution(
            (s.reported_ns - s.completed_ns) / NS_PER_MS
            for s in done
            if s.reported_ns is not None and s.completed_ns is not None
        ),
    )


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
