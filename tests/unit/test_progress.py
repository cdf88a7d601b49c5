"""What a node tells of its progress, and how it is read by those who do not trust it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.progress import Progress, clock, describe, parse, time_left_s

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("state", "done", "total", "qps", "latency_ms", "left_s")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_whatever_a_node_says_is_one_harmless_line(content: object) -> None:
    progress = parse(json.dumps(content))
    line = describe(progress)
    assert line.isprintable()
    assert len(line) < 250
    assert progress.done >= 0
    assert progress.total >= 0


@given(st.text(max_size=3000))
def test_what_is_no_progress_says_that_the_run_is_starting(text: str) -> None:
    assert parse(text).state


def test_what_was_reported_is_what_is_read() -> None:
    progress = Progress("measuring", 20, 100, 4.5, 220.0, 17.8)
    assert parse(progress.text()) == progress
    assert describe(progress) == "measuring 20/100, 4.50 QPS, last answer 0.22 s, 0:18 left"
    assert describe(Progress("measuring", 20, left_s=3700)) == "measuring 20 queries, 1:01:40 left"


def test_control_characters_never_reach_a_terminal() -> None:
    progress = parse(json.dumps({"state": "mea\x1b[2Jsuring\r\n\x07\u202e"}))
    assert progress.state == "mea[2Jsuring"


def test_a_stage_is_the_state_without_its_particulars() -> None:
    assert Progress("searching: probe 3 at 4 queries/s").stage == "searching"
    assert Progress("ready, waiting for the others").stage == "ready"


@given(
    done=st.integers(0, 1000),
    total=st.integers(0, 1000),
    elapsed_s=st.floats(0.01, 1e5),
    least_s=st.floats(0, 1e5),
)
def test_an_estimate_is_never_below_what_is_certain(done: int, total: int, elapsed_s: float, least_s: float) -> None:
    left_s = time_left_s(done, total, elapsed_s, least_s)
    if left_s is None:
        assert not (0 < done <= total)
    else:
        assert left_s >= max(0.0, least_s - elapsed_s) - 1e-9


def test_time_left_goes_by_the_pace_and_by_the_least_duration() -> None:
    assert time_left_s(25, 100, 10.0) == pytest.approx(30.0)
    assert time_left_s(25, 100, 10.0, least_s=600) == pytest.approx(590.0)
    assert time_left_s(5, 0, 10.0, least_s=600) == pytest.approx(590.0)
    # No query is done, nobody knows how many there will be, or it takes longer than it has to: no honest estimate.
    assert time_left_s(0, 100, 10.0) is None
    assert time_left_s(5, 0, 10.0) is None
    assert time_left_s(5, 0, 601.0, least_s=600) is None


def test_a_clock_has_hours_where_there_are_any() -> None:
    assert [clock(0), clock(59.6), clock(75), clock(3675)] == ["0:00", "1:00", "1:15", "1:01:15"]


def test_what_ends_at_a_time_ends_then_at_the_latest() -> None:
    assert time_left_s(10, 1000, 100.0, most_s=120.0) == 20.0
    assert time_left_s(10, 1000, 130.0, most_s=120.0) == 0.0
    assert time_left_s(90, 100, 90.0, most_s=120.0) == 10.0
