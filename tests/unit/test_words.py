"""Counts, changes and stages as a person would say them."""

from __future__ import annotations

from typing import get_args

import pytest

from benchmark.cluster.report.amounts import amount, tick
from benchmark.records.base import Stage
from benchmark.text.figures import figure
from benchmark.words import brief, during, percent, plural, sentences, shown


@pytest.mark.parametrize(("count", "said"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes"), (1200, "1,200 nodes")])
def test_one_is_no_plural(count: int, said: str) -> None:
    assert plural(count, "node") == said
    assert plural(1, "query", "queries") == "1 query"
    assert plural(3, "query", "queries") == "3 queries"


@pytest.mark.parametrize(
    ("change", "digits", "said"),
    [(-0.0001, 1, "0.0%"), (0.0001, 1, "0.0%"), (-0.0, 0, "0%"), (-0.012, 1, "-1.2%"), (9.5, 0, "+950%")],
)  # fmt: skip
def test_a_change_that_rounds_to_nothing_has_no_sign(change: float, digits: int, said: str) -> None:
    assert percent(change, digits) == said


def test_zero_has_no_sign() -> None:
    assert (figure(-0.0), amount(-0.0), tick(-0.0)) == ("0.00", "0.00", "0")


def test_every_stage_can_be_said_after_failed() -> None:
    for stage in get_args(Stage):
        assert during(stage).split()[0] in ("in", "while", "during", "after")
        assert during(stage) != "while ready"


def test_a_question_ends_as_it_does() -> None:
    assert sentences("Is it up?\nThe end\nNo.\n\n") == "Is it up? The end. No."


def test_a_text_is_cut_between_words() -> None:
    assert brief("one  two\nthree", 20) == "one two three"
    assert brief("one two three four", 15) == "one two ..."
    assert brief("a" * 30, 20) == "a" * 16 + " ..."
    assert brief("full: " + "a" * 30, 20) == "full: aaaaaaaaaa ..."
    assert all(len(brief("some words " * 40, most)) <= most for most in range(20, 100))


@pytest.mark.parametrize(
    ("value", "beside", "text"),
    [
        (0.527, None, "0.527"),
        (1870.4, None, "1870"),
        (12345.6, None, "12346"),
        (20, None, "20"),
        (0.0, None, "0"),
        (3000.4, 3000, "3000.4"),  # never "3000, at most 3000 is asked"
        (0.44996, 0.45, "0.44996"),
        (0.45, 0.45, "0.45"),
    ],
)
def test_a_value_is_distinguished_from_its_limit(value: float, beside: float | None, text: str) -> None:
    assert shown(value, beside) == text
