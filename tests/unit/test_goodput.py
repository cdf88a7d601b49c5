"""What met the limits of TTFT and TPOT together, and how many were in progress: by hand and by property."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.columns import Columns
from benchmark.goodput import goodput, in_flight, limits_of, met
from benchmark.metrics import SAMPLES_NEEDED, compute
from benchmark.records import Goodput, Sample, Slo
from benchmark.records.goodput import NEEDED
from tests.unit.building import MS, asked, failed, sample, sample_lists

LIMITS = st.builds(Slo, ttft_ms=st.floats(0.001, 1e5), tpot_ms=st.floats(0.001, 1e5))


def good(samples: list[Sample], slo: Slo, planned: int | None = None) -> Goodput | None:
    columns = Columns.of(samples)
    return goodput(columns, compute(columns, len(samples) if planned is None else planned), slo)


def test_goodput_by_hand() -> None:
    """Of five queries: in time; first token late; tokens slow; failed; never issued."""
    samples = [
        sample(0, latency_ms=1000, ttft_ms=370, tokens=64),  # TPOT 10 ms
        sample(1, latency_ms=1000, ttft_ms=501, tokens=64),
        sample(2, latency_ms=2000, ttft_ms=100, tokens=20),  # TPOT 100 ms
        failed(3),
    ]
    found = good(samples, Slo(ttft_ms=500, tpot_ms=30), planned=5)
    assert found is not None
    assert (found.queries, found.met, found.share) == (5, 1, 0.2)
    assert (found.qps, found.tokens_per_s) == (1 / 2, 64 / 2)
    assert found.in_flight == pytest.approx(4 / 2)
    assert found.users == 3  # for one of two seconds all three were in progress


def test_each_limit_alone_is_enough() -> None:
    late, slow = sample(0, 1000, 501, 64), sample(1, 2000, 100, 20)
    assert [one.met for one in (good([late, slow], Slo(ttft_ms=500)), good([late, slow], Slo(tpot_ms=30))) if one] == [
        *(1, 1)
    ]
    with pytest.raises(ValueError, match="neither a limit"):
        Slo()


def test_one_token_has_no_second_to_wait_for() -> None:
    found = good([sample(0, latency_ms=400, ttft_ms=400, tokens=1)], Slo(ttft_ms=500, tpot_ms=1))
    assert found is not None
    assert found.met == 1


@given(sample_lists(), LIMITS)
def test_a_query_met_both_limits_or_missed(samples: list[Sample], slo: Slo) -> None:
    found = good(samples, slo)
    if not samples:
        assert found is None
        return
    assert found is not None
    in_time = [
        one
        for one in samples
        if one.completed_ns is not None
        and one.first_token_ns is not None
        and one.scheduled_ns is not None
        and (one.first_token_ns - one.scheduled_ns) / MS <= (slo.ttft_ms or 0)
        and (
            one.output_tokens < 2
            or (one.completed_ns - one.first_token_ns) / (one.output_tokens - 1) / MS <= (slo.tpot_ms or 0)
        )
    ]
    assert (found.met, found.queries) == (len(in_time), len(samples))
    columns = Columns.of(samples)
    metrics = compute(columns, len(samples))
    if metrics.qps and found.qps is not None and metrics.duration_s:
        assert found.qps <= metrics.qps
        assert found.qps * metrics.duration_s == pytest.approx(len(in_time))


@given(sample_lists(), LIMITS, LIMITS, st.randoms())
def test_looser_limits_are_met_by_no_fewer(samples: list[Sample], one: Slo, other: Slo, random: Random) -> None:
    loose = Slo(
        ttft_ms=max(one.ttft_ms or 0, other.ttft_ms or 0),
        tpot_ms=max(one.tpot_ms or 0, other.tpot_ms or 0),
    )
    columns = Columns.of(samples)
    strict, wide = met(columns, one), met(columns, loose)
    assert strict is not None
    assert wide is not None
    assert not (strict & ~wide).any()
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert good(shuffled, one) == good(samples, one)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_in_flight_is_counted_from_samples(spans: list[tuple[int, int]]) -> None:
    samples = [sample(i, latency, 1, 1, start) for i, (start, latency) in enumerate(spans)]
    mean, users = in_flight(Columns.of(samples))
    first, last = min(a for a, _ in spans), max(a + b for a, b in spans)
    # Little's law.
    assert mean == pytest.approx(sum(b for _, b in spans) / (last - first))

    def time_with(number: int) -> int:
        edges = sorted({edge for a, b in spans for edge in (a, a + b)})
        return sum(
            right - left for left, right in pairwise(edges) if sum(a <= left < a + b for a, b in spans) >= number
        )

    assert users is not None
    assert 2 * time_with(users) >= last - first > 2 * time_with(users + 1)


def test_a_closed_loop_of_four_serves_four() -> None:
    samples = [sample(4 * turn + user, 1000, 10, 64, 1000 * turn) for turn in range(5) for user in range(4)]
    assert in_flight(Columns.of(samples)) == (4, 4)


@pytest.mark.parametrize(("unseen", "defined"), [(1, True), (2, False)])
def test_what_was_not_seen_is_no_success(unseen: int, defined: bool) -> None:
    """Of a hundred answers one may have come in one piece, and it counts as missed."""
    whole = [sample(i).model_copy(update={"pieces": 1 if i < unseen else 64}) for i in range(100)]
    found = good(whole, Slo(ttft_ms=500, tpot_ms=500))
    assert (found is not None) == defined
    if found is not None:
        assert found.met == 99
    if not defined:
        # When the first token came was not seen, and neither was how fast the others were.
        assert good(whole, Slo(tpot_ms=500)) is None


def test_nobody_is_served_on_too_little() -> None:
    slo = Slo(ttft_ms=500)
    few = Goodput(slo=slo, queries=661, met=661, share=1, users=4)
    enough = few.model_copy(update={"queries": 662})
    missed = Goodput(slo=slo, queries=1000, met=989, share=0.989, users=4)
    each = (few, enough, enough.model_copy(update={"users": 0}), missed)
    assert [one.served for one in each] == [False, True, False, False]
    assert SAMPLES_NEEDED["p99"] == NEEDED


def test_a_profiles_own_limits() -> None:
    limits = [
        {"metric": "ttft_ms.p50", "at_most": 100},
        {"metric": "ttft_ms.p99", "at_most": 400},
        {"metric": "tpot_ms.mean", "at_most": 20},  # a mean is no limit of any answer
        {"metric": "latency_ms.p99", "at_most": 3000},
    ]
    profile = asked(3, {"limits": limits}).profile
    assert limits_of(profile) == Slo(ttft_ms=400)
    assert limits_of(profile, {"ttft_ms": 500, "tpot_ms": 30}) == Slo(ttft_ms=400, tpot_ms=30)
    assert limits_of(asked(3).profile) is None
    # Of a ladder whose crossings are looked for, where the verdict has none.
    found = (("p99", 90), ("p99", 80), ("p50", 7))
    ladder = {"concurrency": [1], "limits": [{"metric": f"ttft_ms.{name}", "at_most": ms} for name, ms in found]}
    assert limits_of(asked(3, {"sweep": ladder}).profile) == Slo(ttft_ms=80)
    assert limits_of(asked(3, {"sweep": ladder, "limits": limits}).profile) == Slo(ttft_ms=400)
