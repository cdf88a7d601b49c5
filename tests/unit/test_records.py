import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmark.records import NodeResult, Sample, Window
from tests.unit.building import asked, closed_loop, result_of, sample


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issued_ns": 5, "scheduled_ns": 6}, "not in order"),
        ({"first_token_ns": 1}, "not in order"),
        ({"completed_ns": 51_000_000, "first_token_ns": 52_000_000}, "not in order"),
        ({"completed_ns": None}, "either a completed time or an error"),
        ({"error": "it failed"}, "either a completed time or an error"),
        ({"first_token_ns": None}, "no first-token time"),
        ({"index": -1}, "greater than or equal to 0"),
        ({"completed_ns": 2**63}, "less than"),
        ({"extra": 1}, "Extra inputs"),
    ],
)
def test_an_impossible_sample_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sample.model_validate({**sample(0).model_dump(), **changes})


def test_a_window_does_not_end_before_it_starts() -> None:
    with pytest.raises(ValidationError, match="ends before it starts"):
        Window(started_unix_ns=2, ended_unix_ns=1)


@given(st.integers(0, 2**62), st.integers(0, 10**12))
def test_a_late_window_comes_back_from_json_as_it_was(started_unix_ns: int, ahead_ns: int) -> None:
    window = Window.of(started_unix_ns, started_unix_ns, max(0, started_unix_ns - ahead_ns))
    assert Window.model_validate_json(window.model_dump_json()) == window


def test_a_window_is_as_late_as_it_says() -> None:
    with pytest.raises(ValidationError, match="late by another time"):
        Window(started_unix_ns=5, ended_unix_ns=6, asked_unix_ns=2, late_ms=0)
    with pytest.raises(ValidationError, match="late by another time"):
        Window(started_unix_ns=5, ended_unix_ns=6, late_ms=1)


def test_a_result_comes_back_from_json_as_it_was() -> None:
    result = result_of("jw2", asked(3), closed_loop([1234.5678, 1 / 3 * 1e4, 99.9]))
    assert NodeResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_infinite_or_not_a_number(value: float) -> None:
    fields = result_of("jw2", asked(1), closed_loop([1000])).model_dump()
    fields["metrics"]["qps"] = value
    with pytest.raises(ValidationError, match="finite"):
        NodeResult.model_validate(fields)
