"""What the playbook says of the time before it measures more than once."""

from typing import Any

import mlperf_loadgen
import pytest

from benchmark.cluster.price import LOADGEN_LEAST_MS, measurement_s, prices
from benchmark.settings import resolve
from tests.unit.building import asked

SERVER: dict[str, Any] = {"benchmark_profile": "mlperf-server", "benchmark_target_qps": 2}


def test_what_is_measured_once_has_no_price() -> None:
    assert prices([asked(), asked()]) == []


def test_turns_alone_cost_a_measurement_for_each_node() -> None:
    (told,) = prices([asked(20, benchmark_solo_first=True)] * 3)
    assert "3 nodes measure alone, one after the other, before all do together." in told
    assert "3 measurements more, each about 40 s at the target's rate." in told
    assert prices([asked(20, benchmark_solo_first=True)]) == [], "one node is alone anyway"


def test_repeats_cost_a_measurement_each() -> None:
    (told,) = prices([asked(20, benchmark_repeats=3)] * 2)
    assert "there are 3 measurements, each about 40 s at the target's rate." in told
    (told,) = prices([resolve({**SERVER, "benchmark_repeats": 3})])
    assert "there are 3 measurements, each about 10 minutes or more." in told
    both = prices([asked(benchmark_repeats=2, benchmark_solo_first=True)] * 2)
    assert [told.split(":")[0] for told in both] == ["benchmark_solo_first", "benchmark_repeats"]


def test_the_node_that_takes_longest_counts_and_one_that_only_judges_answers_does_not() -> None:
    slow = asked(60, benchmark_repeats=2, benchmark_target_qps=0.1)
    (told,) = prices([asked(20, benchmark_repeats=2), slow])
    assert "each about 10 minutes at the target's rate" in told
    assert prices([asked(benchmark_repeats=2, profile={"accuracy": "only"})]) == []


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        (SERVER, 600),
        ({**SERVER, "benchmark_target_qps": 0.5}, 1324),
        ({**SERVER, "benchmark_target_qps": "auto"}, 600),
        ({"benchmark_profile": "mlperf-offline", "benchmark_target_qps": 0.5}, 600),
        ({"benchmark_profile": "quick", "benchmark_target_qps": 4}, 5),
    ],
)
def test_a_measurement_takes_as_long_as_its_schedule(settings: dict[str, Any], seconds: float) -> None:
    assert measurement_s(resolve(settings)) == seconds


def test_where_nothing_is_known_it_says_so() -> None:
    (told,) = prices([asked(profile={"samples": None}, benchmark_repeats=2)])
    assert "each as long as a whole run measures" in told


def test_loadgens_own_least_duration_is_what_we_say() -> None:
    settings = mlperf_loadgen.TestSettings()
    settings.FromConfig("", "llama3_1-8b", "Server", 0)
    assert settings.min_duration_ms == LOADGEN_LEAST_MS
