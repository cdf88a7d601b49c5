"""From which value on a series is another one."""

import random

from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.history.changepoint import LEAST_SIDE, change_points

NOISE = st.floats(-0.005, 0.005)


def test_a_step_is_found_where_it_is() -> None:
    assert change_points([0.50, 0.51, 0.49, 0.50, 0.50, 0.44, 0.45, 0.44, 0.44]) == [5]


def test_several_steps() -> None:
    assert change_points([10] * 5 + [8] * 5 + [12] * 4) == [5, 10]


def test_the_newest_run_may_begin_a_new_level() -> None:
    assert change_points([1, 1, 1, 1, 0.8]) == [4]
    assert change_points([1, 1, 1, 1, 0.8, 1, 1, 1]) == []


@given(st.floats(0.01, 1e5), st.integers(0, 40))
def test_a_constant_series_never_shifts(value: float, count: int) -> None:
    assert change_points([value] * count) == []


@given(
    st.integers(LEAST_SIDE, 12), st.integers(LEAST_SIDE, 12), st.floats(0.12, 2), st.booleans(),
    st.lists(NOISE, min_size=24, max_size=24), st.floats(0.001, 1000),
)  # fmt: skip
def test_a_step_above_the_spread_is_found_at_its_first_value(
    before: int, after: int, step: float, down: bool, noise: list[float], unit: float
) -> None:
    level = 1 / (1 + step) if down else 1 + step
    levels = [1.0] * before + [level] * after
    series = [unit * value * (1 + noise[number]) for number, value in enumerate(levels)]
    assert change_points(series) == [before]


@given(st.lists(NOISE, max_size=24), st.floats(0.001, 1000))
def test_quiet_noise_never_shifts(noise: list[float], unit: float) -> None:
    assert change_points([unit * (1 + one) for one in noise]) == []


def test_natural_spread_seldom_shifts_however_long_the_series() -> None:
    chance = random.Random(11)
    alarms = sum(
        bool(change_points([chance.gauss(1, spread) for _ in range(length)]))
        for length in (4, 8, 20, 40)
        for spread in (0.005, 0.02)
        for _ in range(100)
    )
    assert alarms <= 12  # of 800
