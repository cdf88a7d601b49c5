"""Intervals from the bootstrap's known distributions, held against drawing every sample."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.comparison.bootstrap import (
    inflation,
    interval_of_change,
    percentile_draw,
    rate_draw,
    repeats_draw,
)
from benchmark.metrics import percentile

CHANCE = random.Random(7)
VALUES = [CHANCE.lognormvariate(3, 0.3) for _ in range(300)]


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_a_percentile_is_drawn_as_if_every_sample_had_been(fraction: float) -> None:
    ordered = sorted(VALUES)
    draw, chance = percentile_draw(ordered, fraction), random.Random(1)
    quick = sorted(draw(chance) for _ in range(4000))
    whole = sorted(percentile(sorted(chance.choices(ordered, k=300)), fraction) for _ in range(1500))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        one, other = quick[int(share * 4000)], whole[int(share * 1500)]
        # Within two places of each other among the samples: the draws are random.
        assert abs(ordered.index(one) - ordered.index(other)) <= 4


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=50), st.sampled_from([0.5, 0.9, 0.99]), st.integers(0, 99))
def test_a_drawn_percentile_is_a_value_that_was_measured(values: list[float], fraction: float, seed: int) -> None:
    ordered = sorted(values)
    assert percentile_draw(ordered, fraction)(random.Random(seed)) in ordered


def test_a_rate_is_drawn_around_itself() -> None:
    gaps = [CHANCE.gauss(1, 0.2) for _ in range(200)]
    ended = [sum(gaps[: number + 1]) for number in range(200)]
    draw = rate_draw(ended, [1.0] * 200)
    assert draw is not None
    chance = random.Random(3)
    drawn = [draw(chance) for _ in range(3000)]
    assert statistics.fmean(drawn) == pytest.approx(200 / ended[-1], rel=0.005)
    # The standard error of a mean of 200 with 20 % spread.
    assert statistics.stdev(drawn) / statistics.fmean(drawn) == pytest.approx(0.2 / 200**0.5, rel=0.25)


def test_the_pieces_of_a_rate_cover_all_of_the_run() -> None:
    ended = [0.5 * (number + 1) for number in range(103)]
    draw = rate_draw(ended, [2.0] * 103)
    assert draw is not None
    assert draw(random.Random(0)) == pytest.approx(4.0)


@pytest.mark.parametrize("ended", [[], [1.0], [0.0, 0.0]])
def test_too_little_is_no_rate(ended: list[float]) -> None:
    assert rate_draw(ended, [1.0] * len(ended)) is None


def test_neighbours_that_are_alike_tell_less() -> None:
    independent = [CHANCE.random() for _ in range(4000)]
    in_runs = [value for value in independent[:40] for _ in range(100)]
    assert inflation(independent, 0.5) < 3
    assert inflation(in_runs, 0.5) > 30
    assert inflation(independent[:100], 0.5) == 1
    assert inflation([1.0] * 4000, 0.5) == 1


def test_the_interval_covers_no_change_where_there_is_none() -> None:
    missed = 0
    for seed in range(150):
        chance = random.Random(seed)
        sides = [sorted(chance.gauss(100, 10) for _ in range(100)) for _ in range(2)]
        low, high = interval_of_change(percentile_draw(sides[0], 0.5), percentile_draw(sides[1], 0.5), 600)
        missed += not low <= 0 <= high
    assert missed <= 6  # one or two are expected of 150 at 99 %


def test_the_same_seed_gives_the_same_interval() -> None:
    draw = percentile_draw(sorted(VALUES), 0.5)
    assert interval_of_change(draw, draw, 1000) == interval_of_change(draw, draw, 1000)


# The 99.5 % quantile of Student's t-distribution, from a table.
@pytest.mark.parametrize(("count", "student"), [(3, 9.925), (5, 4.604), (10, 3.250)])
def test_repeats_are_drawn_as_widely_as_so_few_allow(count: int, student: float) -> None:
    logs = [CHANCE.gauss(0, 0.01) for _ in range(count)]
    draw, chance = repeats_draw([math.exp(log) for log in logs]), random.Random(5)
    drawn = sorted(math.log(draw(chance)) for _ in range(40_000))
    reach = student * statistics.stdev(logs) / math.sqrt(count)
    assert drawn[20_000] == pytest.approx(statistics.fmean(logs), abs=0.05 * reach)
    assert drawn[39_800] - statistics.fmean(logs) == pytest.approx(reach, rel=0.15)


@given(st.lists(st.floats(1e-6, 1e9), min_size=3, max_size=20), st.integers(0, 99))
def test_a_drawn_repeat_is_a_number_above_zero(values: list[float], seed: int) -> None:
    drawn = repeats_draw(values)(random.Random(seed))
    assert 0 < drawn < math.inf
