"""What the playbook says of the time before it measures more than once."""

from typing import Any

import mlperf_loadgen
import pytest

from benchmark.cluster.estimated_duration import LOADGEN_LEAST_MS, duration, estimated_durations, measurement_s
from benchmark.resolve import resolve
from tests.unit.building import asked

SERVER: dict[str, Any] = {"benchmark_profile": "mlperf-server", "benchmark_target_qps": 2}


def test_nothing_is_said_of_what_is_measured_once() -> None:
    assert estimated_durations([asked(), asked()]) == []


def test_turns_alone_cost_a_measurement_for_each_node() -> None:
    (reported,) = estimated_durations([asked(20, benchmark_solo_first=True)] * 3)
    assert "3 nodes measure alone, one after another, before all measure together." in reported
    assert "That adds 3 measurements, each about 40 s at the target's rate." in reported
    assert estimated_durations([asked(20, benchmark_solo_first=True)]) == [], "one node is alone anyway"


def test_repeats_cost_a_measurement_each() -> None:
    (reported,) = estimated_durations([asked(20, benchmark_repeats=3)] * 2)
    assert "measured 3 times, each about 40 s at the target's rate." in reported
    _, reported = estimated_durations([resolve({**SERVER, "benchmark_repeats": 3})])
    assert "measured 3 times, each about 1 h 51 min or more." in reported
    both = estimated_durations([asked(benchmark_repeats=2, benchmark_solo_first=True)] * 2)
    assert [reported.split(":")[0] for reported in both] == ["benchmark_solo_first", "benchmark_repeats"]


def test_what_loadgens_schedule_takes_is_said() -> None:
    (reported,) = estimated_durations([resolve({**SERVER, "benchmark_accuracy": "with-performance"})] * 2)
    assert reported == (
        "mlperf-server: measuring 1 h 51 min, accuracy over all prompts 1 h 51 min at 2 queries/s, which "
        "benchmark_target_qps requires of a GPU. benchmark_timeout_s (1800) ends a run that takes longer than 30 min: "
        "raise it, or raise the target if the GPUs are faster."
    )
    (reported,) = estimated_durations([resolve({**SERVER, "benchmark_target_qps": 50})])
    assert reported == "mlperf-server: measuring 13 min at 50 queries/s, which benchmark_target_qps requires of a GPU."
    (reported,) = estimated_durations([resolve({**SERVER, "benchmark_accuracy": "only"})])
    assert reported.startswith("mlperf-server: accuracy over all prompts 1 h 51 min at 2 queries/s")
    (reported,) = estimated_durations([resolve({"benchmark_profile": "mlperf-edge-singlestream"})])
    assert (
        reported
        == "mlperf-edge-singlestream: measuring 10 min or more: the exact time is known, and shown, once it has begun."
    )


def test_what_another_schedule_takes_is_said() -> None:
    arrivals = {"scenario": "schedule", "scenario_options": {"arrivals": "gamma"}}
    (reported,) = estimated_durations([asked(2000, arrivals)])
    assert reported.startswith(
        "quick: measuring 67 min at 0.5 queries/s, which benchmark_target_qps requires of a GPU."
    )
    assert "benchmark_timeout_s (1800) ends a run that takes longer than 30 min" in reported
    assert estimated_durations([asked(20, arrivals)]) == []
    # How long a trace is, its file says, and that is on the node.
    assert estimated_durations([asked(2000, {**arrivals, "scenario_options": {"arrivals": "trace"}})]) == []


def test_the_node_that_takes_longest_counts() -> None:
    slow = asked(60, benchmark_repeats=2, benchmark_target_qps=0.1)
    (reported,) = estimated_durations([asked(20, benchmark_repeats=2), slow])
    assert "each about 10 min at the target's rate" in reported
    assert estimated_durations([asked(benchmark_repeats=2, profile={"accuracy": "only"})]) == []


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        # LoadGen asks for every article, and for each equally often.
        (SERVER, 13368 / 2),
        ({**SERVER, "benchmark_target_qps": 30}, 2 * 13368 / 30),
        ({**SERVER, "benchmark_target_qps": "auto"}, 600),
        ({"benchmark_profile": "mlperf-offline", "benchmark_target_qps": 0.5}, 26736),
        ({"benchmark_profile": "mlperf-edge-offline", "benchmark_target_qps": 4}, 1250),
        ({"benchmark_profile": "mlperf-edge-singlestream"}, 600),
        ({"benchmark_profile": "quick", "benchmark_target_qps": 4}, 5),
    ],
)
def test_a_measurement_takes_as_long_as_its_schedule(settings: dict[str, Any], seconds: float) -> None:
    assert measurement_s(resolve(settings)) == seconds


def test_where_nothing_is_known_it_says_so() -> None:
    (reported,) = estimated_durations([asked(profile={"samples": None}, benchmark_repeats=2)])
    assert "each as long as a whole measurement" in reported


def test_loadgens_own_least_duration_is_what_we_say() -> None:
    settings = mlperf_loadgen.TestSettings()
    settings.FromConfig("", "llama3_1-8b", "Server", 0)
    assert settings.min_duration_ms == LOADGEN_LEAST_MS


@pytest.mark.parametrize(("seconds", "words"), [(45, "45 s"), (720, "12 min"), (26760, "7 h 26 min")])
def test_a_time_is_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_sweep_says_how_many_steps_it_may_have() -> None:
    (reported,) = estimated_durations([resolve({"benchmark_profile": "sweep"})])
    assert reported == (
        "sweep: the model is loaded once and measured in up to 10 steps, each of up to 2 min plus the queries then in "
        "flight. It may take fewer."
    )
