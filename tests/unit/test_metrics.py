import math
from random import Random
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.columns import Columns
from benchmark.metrics import PERCENTILES, compute, distribution, percentile, pooled_distribution, samples_needed
from benchmark.records import Distribution, Metrics, Sample
from tests.unit.building import closed_loop, failed, sample, sample_lists

TIMES = st.lists(st.floats(0, 1e9), min_size=1, max_size=200)


@given(TIMES, st.sampled_from([0.0, 0.25, *PERCENTILES.values(), 0.999]))
def test_a_percentile_is_the_nearest_rank(values: list[float], fraction: float) -> None:
    brute = min(v for v in values if sum(other <= v for other in values) > len(values) * fraction)
    assert percentile(sorted(values), fraction) == brute


def test_percentiles_by_hand() -> None:
    hundred = [float(v) for v in range(1, 101)]
    assert [percentile(hundred, f) for f in (0.5, 0.9, 0.99)] == [51, 91, 100]
    assert percentile([7.0], 0.99) == 7


@pytest.mark.parametrize(("values", "fraction"), [([], 0.5), ([1.0], 1.0), ([1.0], -0.1)])
def test_a_percentile_of_nothing_or_beyond_the_range_is_an_error(values: list[float], fraction: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, fraction)


@pytest.mark.parametrize(("fraction", "needed"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_sample_floor_at_99_percent_confidence(fraction: float, needed: int) -> None:
    assert samples_needed(fraction) == needed


@given(TIMES)
def test_a_distribution_is_ordered_and_says_what_is_insufficient(values: list[float]) -> None:
    spread = distribution(values)
    assert spread is not None
    assert spread.count == len(values)
    ordered = [spread.min, spread.p50, spread.p90, spread.p95, spread.p99, spread.max]
    assert ordered == sorted(ordered)
    assert spread.min * (1 - 1e-12) <= spread.mean <= spread.max * (1 + 1e-12)
    floors = {"p50": 11, "p90": 64, "p95": 130, "p99": 662}
    assert spread.insufficient == {name: floor for name, floor in floors.items() if len(values) < floor}


def test_a_distribution_of_nothing_is_undefined() -> None:
    assert distribution([]) is None


@given(sample_lists(), st.integers(0, 5))
def test_queries_add_up(samples: list[Sample], more: int) -> None:
    metrics = compute(Columns.of(samples), len(samples) + more)
    queries = metrics.queries
    assert queries.planned == queries.completed + queries.failed + queries.unfinished == len(samples) + more
    assert queries.failed == sum(s.error is not None for s in samples)
    done = [s for s in samples if s.error is None]
    assert metrics.output_tokens == sum(len(s.token_ids) for s in done)
    assert metrics.input_tokens == sum(s.input_tokens for s in done)
    assert count(metrics.latency_ms) == count(metrics.ttft_ms) == len(done)
    assert count(metrics.tpot_ms) == sum(len(s.token_ids) > 1 for s in done)
    assert count(metrics.issue_delay_ms) == len(samples)
    if metrics.qps is not None:
        assert metrics.duration_s is not None
        assert metrics.tokens_per_s is not None
        assert metrics.qps * metrics.duration_s == pytest.approx(len(done))
        assert metrics.tokens_per_s * metrics.duration_s == pytest.approx(metrics.output_tokens)


@given(sample_lists(), st.randoms())
def test_metrics_do_not_depend_on_the_order_of_samples(samples: list[Sample], random: Random) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert compute(Columns.of(shuffled), len(samples)) == compute(Columns.of(samples), len(samples))


def count(spread: Distribution | None) -> int:
    return 0 if spread is None else spread.count


def test_the_formulas_by_hand() -> None:
    metrics = compute(Columns.of([sample(0, latency_ms=1000, ttft_ms=370, tokens=64), failed(1, 1000)]), planned=3)
    assert metrics.queries.model_dump() == {"planned": 3, "completed": 1, "failed": 1, "unfinished": 1}
    assert metrics.duration_s == pytest.approx(0.9999)  # issued 0.1 ms after the schedule
    assert metrics.qps == pytest.approx(1 / 0.9999)
    assert metrics.tokens_per_s == pytest.approx(64 / 0.9999)
    assert p99(metrics.latency_ms) == 1000
    assert p99(metrics.latency_from_issue_ms) == pytest.approx(999.9)
    assert p99(metrics.ttft_ms) == 370
    assert p99(metrics.ttft_from_issue_ms) == pytest.approx(369.9)
    assert p99(metrics.tpot_ms) == 10  # (1000 - 370) / 63
    assert p99(metrics.issue_delay_ms) == pytest.approx(0.1)


def p99(spread: Distribution | None) -> float:
    assert spread is not None
    return spread.p99


def test_what_is_undefined_is_not_zero() -> None:
    nothing = compute(Columns.of(()), planned=20)
    assert nothing.queries.unfinished == 20
    assert {name for name, value in nothing if value is None} == {
        name
        for name in Metrics.model_fields
        if name not in ("times_of", "queries", "answers", "input_tokens", "output_tokens")
    }
    assert compute(Columns.of([sample(0, tokens=1)]), 1).tpot_ms is None
    only_failed = compute(Columns.of([failed(0)]), 1)
    assert only_failed.qps is None
    assert only_failed.issue_delay_ms is not None


def plain(samples: list[Sample]) -> dict[str, list[float]]:
    """Return the times of every distribution in docs/metrics.md, a sample after the other."""
    done = [s for s in samples if s.completed_ns is not None]

    def between(over: list[Sample], earlier: str, later: str) -> list[float]:
        pairs = [(getattr(s, earlier), getattr(s, later)) for s in over]
        return [(to - since) / 1e6 for since, to in pairs if since is not None and to is not None]

    return {
        "latency_ms": between(done, "scheduled_ns", "completed_ns"),
        "latency_from_issue_ms": between(done, "issued_ns", "completed_ns"),
        "ttft_ms": between(done, "scheduled_ns", "first_token_ns"),
        "ttft_from_issue_ms": between(done, "issued_ns", "first_token_ns"),
        "tpot_ms": [
            (s.completed_ns - s.first_token_ns) / (s.output_tokens - 1) / 1e6
            for s in done
            if s.completed_ns is not None and s.first_token_ns is not None and s.output_tokens > 1
        ],
        "issue_delay_ms": between(samples, "scheduled_ns", "issued_ns"),
        "first_report_delay_ms": between(samples, "first_token_ns", "first_reported_ns"),
        "report_delay_ms": between(done, "completed_ns", "reported_ns"),
    }


@st.composite
def any_sample(draw: st.DrawFn, index: int) -> Sample:
    """Any sample that the record accepts, of times beyond what a double holds too."""
    times = sorted(draw(st.lists(st.one_of(st.integers(0, 10**12), st.integers(0, 2**63 - 1)), min_size=5, max_size=5)))
    error = draw(st.sampled_from([None, None, "out of memory"]))
    first = draw(st.sampled_from([None, times[2]]))
    counts = st.one_of(st.integers(0, 200), st.integers(0, 2**60))
    return Sample(
        index=index,
        prompt_id="p",
        scheduled_ns=draw(st.sampled_from([None, times[0]])),
        issued_ns=times[1],
        first_token_ns=first,
        first_reported_ns=None if first is None else draw(st.sampled_from([None, times[2], times[4]])),
        completed_ns=times[3] if error is None else None,
        reported_ns=draw(st.sampled_from([None, times[4]])),
        input_tokens=draw(counts),
        output_tokens=0 if first is None else draw(counts),
        error=error,
    )


@given(st.integers(0, 12).flatmap(lambda count: st.tuples(*(any_sample(index) for index in range(count)))))
def test_every_digit_is_that_of_the_formulas(drawn: tuple[Sample, ...]) -> None:
    samples = list(drawn)
    metrics = compute(Columns.of(samples), len(samples))
    for name, values in plain(samples).items():
        spread = getattr(metrics, name)
        assert (None if spread is None else spread.model_dump()) == formulas(values), name
    done = [s for s in samples if s.completed_ns is not None]
    assert metrics.output_tokens == sum(s.output_tokens for s in done)
    assert metrics.input_tokens == sum(s.input_tokens for s in done)
    elapsed = max((s.completed_ns or 0 for s in done), default=0) - min((s.issued_ns for s in samples), default=0)
    if done and elapsed > 0:
        assert metrics.duration_s == elapsed / 1e9
        assert metrics.qps == len(done) / (elapsed / 1e9)
        assert metrics.tokens_per_s == metrics.output_tokens / (elapsed / 1e9)
    else:
        assert metrics.qps is metrics.tokens_per_s is metrics.duration_s is None


def formulas(values: list[float]) -> dict[str, object] | None:
    ordered = sorted(values)
    if not ordered:
        return None
    return {
        "count": len(ordered),
        "mean": math.fsum(ordered) / len(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        **{name: percentile(ordered, fraction) for name, fraction in PERCENTILES.items()},
        "insufficient": {"p50": 11, "p90": 64, "p95": 130, "p99": 662} if len(ordered) < 11 else ANY,
    }


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([sample(0), sample(0)], "same index"),
        (closed_loop([100, 100, 100]), "index 2 where 2 were planned"),
        ([sample(7)], "index 7"),
    ],
)
def test_samples_that_cannot_be_one_runs_are_refused(samples: list[Sample], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute(Columns.of(samples), planned=2)


FLOATS = st.lists(st.floats(-1e15, 1e15), max_size=60)


@given(st.lists(FLOATS, max_size=8))
def test_pooling_gives_what_sorting_all_values_would(each: list[list[float]]) -> None:
    everything = sorted(value for values in each for value in values)
    pooled = pooled_distribution([sorted(values) for values in each])
    if not everything:
        assert pooled is None
        return
    assert pooled is not None
    assert (pooled.count, pooled.min, pooled.max) == (len(everything), everything[0], everything[-1])
    for name, fraction in PERCENTILES.items():
        assert getattr(pooled, name) == percentile(everything, fraction)
    assert pooled.mean == math.fsum(everything) / len(everything)
