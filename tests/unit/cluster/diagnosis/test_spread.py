"""When a value is off its peers."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.diagnosis.spread import (
    LEAST_CHANGE,
    NATURAL_SPREAD,
    Reading,
    deviations,
    mad,
    medians_of_others,
    spread,
)

VALUES = st.lists(st.floats(0.01, 1e6), min_size=2, max_size=30)


def off(values: list[float], alpha: float = 0.01, higher_is_better: bool = True) -> list[int]:
    found = deviations([Reading(value) for value in values], higher_is_better=higher_is_better, alpha=alpha)
    return [number for number, one in enumerate(found) if one.off]


@given(VALUES)
def test_the_median_of_the_others_is_that(values: list[float]) -> None:
    each = [statistics.median(values[:number] + values[number + 1 :]) for number in range(len(values))]
    assert medians_of_others(values) == pytest.approx(each)


@given(VALUES, st.floats(0.001, 1000))
def test_the_unit_of_the_values_does_not_matter(values: list[float], factor: float) -> None:
    one = deviations([Reading(value) for value in values], higher_is_better=True, alpha=0.01)
    other = deviations([Reading(value * factor) for value in values], higher_is_better=True, alpha=0.01)
    assert [d.badness for d in one] == pytest.approx([d.badness for d in other], abs=1e-9)
    assert [d.limit for d in one] == pytest.approx([d.limit for d in other], rel=1e-6)


@given(VALUES)
def test_only_the_bad_side_counts_and_the_best_is_never_off(values: list[float]) -> None:
    assert values.index(max(values)) not in off(values)
    assert values.index(min(values)) not in off(values, higher_is_better=False)


@given(st.floats(0.01, 1e6), st.integers(2, 50))
def test_equal_values_are_never_off(value: float, count: int) -> None:
    assert off([value] * count) == []


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=60))
def test_the_spread_is_the_assumed_one_unless_contradicted(values: list[float]) -> None:
    found, own = spread(values), mad(values)
    assert min(own, NATURAL_SPREAD) <= found <= max(own, NATURAL_SPREAD)
    if len(values) < 8:
        assert found >= NATURAL_SPREAD


def test_few_quiet_nodes_cannot_make_the_limit_smaller() -> None:
    quiet = [1.0, 1.0001, 0.9999]
    assert spread(quiet) == NATURAL_SPREAD
    assert spread(quiet * 30) < NATURAL_SPREAD / 10


def test_one_of_twenty_ten_percent_slow_is_off() -> None:
    noise = [1 + 0.02 * math.sin(number) for number in range(20)]
    assert off([*noise, 0.9]) == [20]
    assert off([*noise, 0.98]) == []


def test_a_change_below_the_least_is_never_named() -> None:
    assert off([1.0] * 100 + [1 - 0.9 * LEAST_CHANGE]) == []
    assert off([1.0] * 100 + [1 - 1.2 * LEAST_CHANGE]) == [100]


def test_uncertain_samples_have_to_be_further_off() -> None:
    sure = deviations([*[Reading(1.0)] * 5, Reading(0.85)], higher_is_better=True, alpha=0.01)[-1]
    unsure = deviations([*[Reading(1.0)] * 5, Reading(0.85, 0.1)], higher_is_better=True, alpha=0.01)[-1]
    assert sure.off
    assert not unsure.off


def test_value_expected_and_change_are_in_the_metrics_own_unit() -> None:
    found = deviations([Reading(10), Reading(20), Reading(30)], higher_is_better=False, alpha=0.01)[2]
    assert found.expected == pytest.approx(math.sqrt(200))
    assert found.change == pytest.approx(30 / math.sqrt(200) - 1)
