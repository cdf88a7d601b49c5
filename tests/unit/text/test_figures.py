import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.text.figures import figure, moment


@given(st.one_of(st.none(), st.just(0.0), st.floats(1e-10, 1e13), st.integers(0, 10**13)))
def test_a_figure_has_at_most_five_characters(value: float | None) -> None:
    assert 1 <= len(figure(value)) <= 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0.00"),
        (0.004, "4e-03"),
        (0.527, "0.53"),
        (9.996, "10.00"),
        (45.26, "45.3"),
        (99.96, "100.0"),
        (1870.4, "1870"),
        (99999.6, "100k"),
        (287_431, "287k"),
        (999_999, "1000k"),
        (12_345_678, "12.3M"),
        (5e12, "5000G"),
        (5e15, "5e+15"),
    ],
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_moments() -> None:
    assert moment("2025-01-02T03:04:05+00:00") == "2025-01-02 03:04:05 UTC"
    assert moment("yesterday") == "yesterday"
