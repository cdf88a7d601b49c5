import itertools
from typing import Any

import pytest

from benchmark.metrics import compute
from benchmark.profiles import Limit, load_profile
from benchmark.records import Status
from benchmark.verdict import judge, label, metric_paths, shown, unit, value_of
from tests.unit.building import asked, closed_loop, failed, sample

METRICS = compute(closed_loop([1000, 1500, 2000]), planned=3)  # 3 queries in 4.4999 s: QPS 0.667


def limits(*given: dict[str, Any]) -> Any:
    return asked(3, {"limits": given}).profile


@pytest.mark.parametrize(
    ("status", "within", "others"),
    [*itertools.product(("complete", "interrupted", "failed"), (True, False), ((), ("LoadGen says INVALID.",)))],
)
def test_valid_is_complete_and_within_the_limits_and_nothing_against_it(
    status: Status, within: bool, others: tuple[str, ...]
) -> None:
    profile = limits({"metric": "latency_ms.p99", "at_most": 2000 if within else 1999})
    verdict = judge(profile, METRICS, 0.5, status, others)
    assert verdict.valid is (status == "complete" and within and not others)
    assert len(verdict.reasons) == (status != "complete") + (not within) + len(others)
    assert [check.passed for check in verdict.checks] == [within]


@pytest.mark.parametrize(
    ("limit", "passed"),
    [
        ({"metric": "qps", "at_least": 0.66}, True),
        ({"metric": "qps", "at_least": 0.67}, False),
        ({"metric": "qps", "at_least_of_target": 0.9}, True),  # 0.9 x 0.7 = 0.63
        ({"metric": "qps", "at_least_of_target": 0.99}, False),
        ({"metric": "latency_ms.p99", "at_most": 2000}, True),
        ({"metric": "latency_ms.p50", "at_most": 1499.9}, False),
        ({"metric": "queries.failed", "at_most": 0}, True),
    ],
)
def test_each_kind_of_limit(limit: dict[str, Any], passed: bool) -> None:
    (check,) = judge(limits(limit), METRICS, 0.7, "complete").checks
    assert check.passed is passed


@pytest.mark.parametrize("bound", [{"at_most": 1e9}, {"at_least": 0}])
def test_what_is_undefined_passes_no_check(bound: dict[str, float]) -> None:
    metrics = compute([sample(0, tokens=1)], 3)
    verdict = judge(limits({"metric": "tpot_ms.p99", **bound}), metrics, 0.5, "complete")
    assert not verdict.valid
    assert "P99 TPOT is undefined" in verdict.reasons[0]


def test_profile_quick() -> None:
    profile = load_profile("quick")
    healthy = compute(closed_loop([1800] * 20), 20)
    assert judge(profile, healthy, 0.5, "complete").valid
    slow = judge(profile, compute(closed_loop([2500] * 20), 20), 0.5, "complete")
    assert slow.reasons == ("QPS is 0.4, at least 0.45 is asked.",)
    broken = judge(profile, compute([*closed_loop([1800] * 18), failed(18, 32400)], 20), 0.5, "complete")
    assert broken.reasons == (
        "failed queries is 1, at most 0 is asked.",
        "unfinished queries is 1, at most 0 is asked.",
    )


def test_a_check_on_too_few_samples_says_so() -> None:
    (check,) = judge(limits({"metric": "latency_ms.p99", "at_most": 3000}), METRICS, 0.5, "complete").checks
    assert check.note == "P99 of 3 samples: insufficient (662 needed at 99 % confidence)"


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
def test_a_value_is_told_from_its_limit(value: float, beside: float | None, text: str) -> None:
    assert shown(value, beside) == text


def test_every_metric_has_a_label_and_a_value() -> None:
    for path in metric_paths():
        assert value_of(METRICS, path) is not None, path
    assert label("latency_ms.p99") == "P99 latency"
    assert (unit("latency_ms.p99"), unit("qps")) == (" ms", "")


@pytest.mark.parametrize("path", ["latency_ms", "latency_ms.p98", "latency_ms.insufficient", "speed", ""])
def test_an_unknown_metric_is_refused_even_where_nothing_was_measured(path: str) -> None:
    with pytest.raises(ValueError, match="there is no metric"):
        value_of(compute([], 3), path)


@pytest.mark.parametrize("given", [{}, {"at_least": 1, "at_most": 2}])
def test_a_limit_has_exactly_one_bound(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Limit(metric="qps", **given)
