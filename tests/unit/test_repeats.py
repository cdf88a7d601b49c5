"""The arithmetic of repeats: how far they differ, and which one is the median."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.repeats import UNSTABLE_CV, deciding_metric, median_repeat, repeat_of, spread_of, spreads
from tests.unit.building import asked, closed_loop, result_of

VALUES = st.lists(st.floats(0, 1e300), min_size=2, max_size=20)
SOME = st.lists(st.none() | st.floats(0, 1e9), min_size=1, max_size=20)


@given(VALUES)
def test_the_spread_encloses_its_median_and_keeps_every_value(values: list[float]) -> None:
    spread = spread_of("qps", values)
    assert spread is not None
    assert spread.values == tuple(values)
    assert spread.lowest == min(values) <= spread.median <= max(values) == spread.highest
    # The largest of n values that are not negative has at most this coefficient of variation: all others are zero.
    assert 0 <= spread.cv <= math.sqrt(len(values)) * (1 + 1e-9)
    assert spread.stable == (spread.cv <= UNSTABLE_CV)


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=20), st.floats(1e-3, 1e3))
def test_the_coefficient_of_variation_knows_no_unit(values: list[float], factor: float) -> None:
    one, other = spread_of("qps", values), spread_of("qps", [value * factor for value in values])
    assert one is not None
    assert other is not None
    assert other.cv == pytest.approx(one.cv, abs=1e-9)
    assert one.cv == pytest.approx(statistics.stdev(values) / statistics.fmean(values), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "stable"), [([100, 100, 100], True), ([95.1, 100, 104.9], True), ([94, 100, 106], False)]
)
def test_five_percent_is_the_limit(values: list[float], stable: bool) -> None:
    spread = spread_of("qps", values)
    assert spread is not None
    assert spread.stable is stable


@pytest.mark.parametrize("values", [[], [1.0], [1.0, None]])
def test_one_value_has_no_spread_nor_has_an_undefined_one(values: list[float | None]) -> None:
    assert spread_of("qps", values) is None


@given(SOME, st.sampled_from(["qps", "latency_ms.p50"]))
def test_the_median_repeat_has_as_many_that_are_better_as_worse(values: list[float | None], metric: str) -> None:
    number = median_repeat(values, metric)
    assert 1 <= number <= len(values)
    sign = 1 if metric == "qps" else -1
    ranks = [(value is not None, sign * (value or 0)) for value in values]
    own = ranks[number - 1]
    worse, better = sum(rank < own for rank in ranks), sum(rank > own for rank in ranks)
    assert worse <= (len(values) - 1) // 2
    assert better <= len(values) // 2
    assert own not in ranks[: number - 1], "of equal ones it is the first"


def test_of_two_middle_repeats_the_worse_is_taken() -> None:
    assert median_repeat([10, 12], "qps") == 1
    assert median_repeat([10, 12], "latency_ms.p50") == 2
    assert median_repeat([4, 1, 3, 2], "qps") == 4


def test_a_repeat_without_a_value_is_the_worst() -> None:
    assert median_repeat([None, 12, 10], "qps") == 3
    assert median_repeat([None, 12], "latency_ms.p50") == 1


def test_where_a_schedule_sets_the_rate_latency_decides() -> None:
    samples = closed_loop([100] * 20)
    assert deciding_metric(result_of("jw2", asked(), samples)) == "qps"
    for scenario, metric in (("Server", "latency_ms.p50"), ("Offline", "qps"), ("SingleStream", "qps")):
        driven = asked(profile={"scenario_options": {"scenario": scenario}})
        assert deciding_metric(result_of("jw2", driven, samples)) == metric


def test_spreads_leave_out_what_a_repeat_lacks() -> None:
    reported: dict[str, list[float | None]] = {"qps": [1.0, 2.0], "ttft_ms.p50": [5.0, None]}
    neither: list[float | None] = [None, None]
    found = spreads(lambda number, metric: reported.get(metric, neither)[number - 1], 2)
    assert [one.metric for one in found] == ["qps"]


def test_the_first_repeat_is_the_results_own_fields() -> None:
    result = result_of("jw2", asked(), closed_loop([100] * 20))
    assert repeat_of(result, 1) == result
