"""The arithmetic of curves, on figures that theory gives: a closed queue, and whatever figures are drawn."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.curves import between, crossing, enough, front, keeps, knee
from benchmark.profiles import Limit

RATES = st.floats(0.1, 1e5)
FIGURES = st.one_of(st.none(), RATES)


def ladder(most: float) -> list[int]:
    """Return 1, 2, 4, ... up to twice as much at least."""
    return [2**power for power in range(30) if 2**power < 4 * most]


@given(st.integers(1, 500), st.floats(0.001, 100))
def test_the_knee_of_a_queue_is_its_number_of_servers(servers: int, service_s: float) -> None:
    loads = ladder(servers)
    rates = [min(load, servers) / service_s for load in loads]
    if len(loads) > 1 and rates[-1] < rates[-2] * 1.05:
        assert knee(loads, rates, 0.05) == pytest.approx(servers)
        least = enough(loads, rates, 0.05)
        assert least is not None
        assert servers / 1.06 <= least < 2 * servers


@given(st.lists(RATES, min_size=1, max_size=8))
def test_a_knee_needs_rates_that_grow_no_more(rates: list[float]) -> None:
    growing = [sum(rates[: number + 1]) * 2**number for number in range(len(rates))]
    assert knee([2**n for n in range(len(rates))], growing, 0.05) is None


def test_undefined_rates_give_no_knee() -> None:
    assert knee([1, 2, 4], [None, None, None], 0.05) is None
    assert knee([1, 2], [5.0, None], 0.05) is None
    assert enough([1, 2], [None, None], 0.05) is None


@given(st.lists(st.tuples(FIGURES, FIGURES), max_size=12))
def test_the_front_is_what_no_point_beats(points: list[tuple[Any, Any]]) -> None:
    flags = front(points)
    whole = [point for point in points if None not in point]
    for (x, y), on in zip(points, flags, strict=True):
        if x is None or y is None:
            assert not on
            continue
        better = [(a, b) for a, b in whole if a >= x and b >= y and (a, b) != (x, y)]
        assert on is not bool(better)
    # Whatever is not on it is beaten by something that is.
    best = [point for point, on in zip(points, flags, strict=True) if on]
    assert all(any(a >= x and b >= y for a, b in best) for x, y in whole)


@given(st.lists(RATES, min_size=1, max_size=10), RATES)
def test_a_limit_is_crossed_after_the_last_that_keeps_it(values: list[float], bound: float) -> None:
    limit, loads = Limit(metric="ttft_ms.p99", at_most=bound), [2**n for n in range(len(values))]
    found = crossing(limit, loads, values)
    first = next((load for load, value in zip(loads, values, strict=True) if value > bound), None)
    assert found.beyond == first
    if first is None:
        assert (found.within, found.at) == (loads[-1], None)
    elif first == loads[0]:
        assert (found.within, found.at) == (None, None)
    else:
        assert found.within is not None
        assert found.within == first / 2
        assert found.at is not None
        assert found.within <= found.at <= first
    assert keeps(limit, None) is False


def test_a_straight_line_is_crossed_where_it_is() -> None:
    found = crossing(Limit(metric="tpot_ms.p99", at_most=30), [1, 2, 4, 8], [5, 10, 20, 40])
    assert (found.within, found.beyond, found.at) == (4, 8, 6)
    least = crossing(Limit(metric="tokens_per_s", at_least=15), [1, 2], [20, 10])
    assert (least.within, least.beyond, least.at) == (1, 2, 1.5)


@given(st.lists(st.tuples(RATES, RATES), min_size=2, max_size=10), st.floats(0, 1))
def test_between_two_points_lies_what_is_between_them(points: list[tuple[float, float]], share: float) -> None:
    (a, _), (c, _) = points[:2]
    x = min(max(a + share * (c - a), min(a, c)), max(a, c))
    found = between(points, x)
    assert found is not None
    assert min(y for _, y in points) * (1 - 1e-9) <= found <= max(y for _, y in points) * (1 + 1e-9)
    assert between(points, max(x for x, _ in points) + 1) is None
    assert between([(a, None), (None, a)], a) is None
