from hypothesis import given
from hypothesis import strategies as st

from benchmark.node.peak import MOST_PROBES, PRECISION, search


@given(st.floats(0.01, 10_000), st.floats(0.05, 20))
def test_the_highest_valid_rate_is_found_within_the_precision(limit: float, guess: float) -> None:
    tried: list[float] = []

    def valid(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = search(valid, limit * guess)
    assert found.rate is not None
    assert found.settled
    assert found.rate <= limit < found.rate * (1 + PRECISION) * 1.001  # rates have four digits
    assert len(tried) <= MOST_PROBES
    assert len(set(tried)) == len(tried), "no rate is tried twice"


def test_an_engine_for_which_every_rate_is_too_much() -> None:
    found = search(lambda rate: False, 100)
    assert (found.rate, found.settled) == (None, False)


def test_an_engine_without_a_limit() -> None:
    found = search(lambda rate: True, 1)
    assert (found.rate, found.settled) == (2 ** (MOST_PROBES - 1), False)
