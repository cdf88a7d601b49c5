"""What a division lacks: runs at full length have nothing, and each fault of one is named with its command."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.submission.missing import measure, missing
from benchmark.cluster.submission.parts import Part, Scenario, Submission, gather_parts
from benchmark.cluster.submission.rules import DATACENTER, EDGE, lacking
from benchmark.loadgen_options import SEEDS
from benchmark.records import Audit, LoadGenResult, NodeResult, Rouge
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION

FULL = {
    "min_duration_ms": 600_000,
    "performance_sample_count": 13368,
    "samples_per_query": 13368,
    "accuracy_sample_count": 13368,
    **SEEDS["6.1"],
}
RESULTS = {
    "result_first_token_99.00_percentile_latency_ns": 300_000_000,
    "result_time_per_output_token_99.00_percentile_ns": 20_000_000,
}
ROUGE = Rouge(
    rouge1=38.8, rouge2=15.9, rougeL=24.5, rougeLsum=35.8, generated_characters=8_167_644, answers=13368,
    references=13368,
)  # fmt: skip


def loadgen(**changes: Any) -> LoadGenResult:
    fields: dict[str, Any] = {"scenario": "Server", "mode": "PerformanceOnly", "valid": True}
    return LoadGenResult.model_validate({**fields, "settings": FULL, "results": RESULTS, **changes})


def full(offline: Path, change: Callable[[NodeResult], NodeResult] = lambda result: result) -> Submission:
    """Return Offline, Server and Interactive as a node would have measured them at full length with the real model."""
    part = gather_parts([offline], ["jw2"]).parts("jw2")[0]
    result = part.result
    assert result.engine is not None
    assert result.accuracy is not None
    settings = result.resolved.settings.model_copy(
        update={"benchmark_model": DEFAULT_MODEL, "benchmark_model_revision": DEFAULT_REVISION}
    )
    result = result.model_copy(
        update={
            "engine": result.engine.model_copy(update={"simulated": False}),
            "loadgen": loadgen(),
            "accuracy": result.accuracy.model_copy(update={"rouge": ROUGE, "loadgen": loadgen(mode="AccuracyOnly")}),
            "resolved": result.resolved.model_copy(update={"settings": settings}),
        }
    )
    good, changed = replace(part, result=result), replace(part, result=change(result))
    scenarios = {name: Scenario(good, good) for name in ("Offline", "Interactive")}
    return Submission({DATACENTER: {"jw2": {**scenarios, "Server": Scenario(changed, changed)}}}, ())


def with_loadgen(**changes: Any) -> Callable[[NodeResult], NodeResult]:
    return lambda result: result.model_copy(update={"loadgen": loadgen(**changes)})


def with_accuracy(**changes: Any) -> Callable[[NodeResult], NodeResult]:
    def change(result: NodeResult) -> NodeResult:
        assert result.accuracy is not None
        return result.model_copy(update={"accuracy": result.accuracy.model_copy(update=changes)})

    return change


def test_runs_at_full_length_lack_nothing_in_open(offline: Path) -> None:
    assert missing(full(offline), "open") == []


def test_in_closed_they_lack_the_audit_alone(offline: Path) -> None:
    sentences = missing(full(offline), "closed")
    assert len(sentences) == 3
    for sentence, name in zip(sentences, ("Offline", "Interactive", "Server"), strict=True):
        assert sentence == f"{name}: there is no TEST06 run: {measure(DATACENTER, name, 'closed')}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_loadgen(valid=False, reasons=("Too slow.",)), "LoadGen says INVALID (Too slow)"),
        (with_loadgen(errors=("key: broken",)), "LoadGen logged an error (key: broken)"),
        (with_loadgen(settings={**FULL, "min_duration_ms": 599_999}), "shorter than 600 s"),
        (with_loadgen(settings={**FULL, "performance_sample_count": 5000}), "fewer than 13,368 articles"),
        (with_loadgen(settings={**FULL, "schedule_rng_seed": 1}), "the seeds are not those of round 6.1"),
        (with_loadgen(results={**RESULTS, "result_first_token_99.00_percentile_latency_ns": 2 * 10**9}),
         "P99 TTFT is 2000.0 ms, and must be below 2000 ms"),
        (with_loadgen(results={}), "P99 TPOT is not reported, and must be below 100 ms"),
        (with_accuracy(loadgen=loadgen(settings={**FULL, "accuracy_sample_count": 13000})), "has 13000 articles"),
    ],
)  # fmt: skip
def test_each_fault_of_a_run_is_named_with_its_command(offline: Path, change: Any, said: str) -> None:
    (sentence,) = missing(full(offline, change), "open")
    assert said in sentence
    assert sentence.startswith("Server: ")
    assert sentence.endswith(": ansible-playbook playbooks/benchmark.yml -e benchmark_profile=mlperf-server "
                             "-e benchmark_accuracy=with-performance")  # fmt: skip


AUDIT_SETTINGS = {
    "test_mode": "PerformanceOnly",
    "accuracy_log_rng_seed": 720381539243781796,
    "accuracy_log_sampling_target": 100,
    "min_query_count": 100,
    "min_duration_ms": 0,
    "sample_concatenate_permutation": False,
}
AUDIT = {
    "name": "TEST06",
    "passed": True,
    "checks": ("Length: pass, 0 of 100 answers differ.",),
    "answers": 100,
    "end_tokens": (2,),
}


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({}, {}, ""),
        (
            {"passed": False, "checks": ("Length: FAIL, 1 of 100 answers differ.", "End: pass.")},
            {},
            "Server: TEST06 failed (Length: FAIL, 1 of 100 answers differ): ",
        ),
        ({"errors": 2}, {}, "Server: 2 queries of the TEST06 run failed: "),
        (
            {},
            {"accuracy_log_sampling_target": 4},
            "Server: the TEST06 run was not made with the official audit.config "
            "(accuracy_log_sampling_target 4 instead of 100): ",
        ),
    ],
)
def test_what_is_wrong_with_an_audit_is_reported(
    offline: Path, changes: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    audit = Audit.model_validate({**AUDIT, **changes, "loadgen": loadgen(settings={**AUDIT_SETTINGS, **settings})})

    def audited(result: NodeResult) -> NodeResult:
        return result.model_copy(update={"audit": audit})

    submission = full(offline, audited)
    server = submission.benchmarks[DATACENTER]["jw2"]["Server"]
    submission.benchmarks[DATACENTER]["jw2"]["Server"] = replace(server, audit=server.performance)
    found = [sentence for sentence in missing(submission, "closed") if sentence.startswith("Server")]
    assert len(found) == bool(said)
    assert all(sentence.startswith(said) for sentence in found)


@pytest.mark.parametrize(
    ("score", "value", "said"),
    [
        ("rouge1", 38.0, "rouge1 is 38.0, and must be at least 38.391408"),
        ("generated_characters", 9_000_000, "generated_characters is 9000000, and must be at most 8984408.4"),
    ],
)
def test_scores_count_in_closed_alone(offline: Path, score: str, value: float, said: str) -> None:
    submission = full(offline, with_accuracy(rouge=ROUGE.model_copy(update={score: value})))
    assert missing(submission, "open") == []
    assert said in " ".join(missing(submission, "closed"))


def test_performance_and_accuracy_are_of_one_system(offline: Path) -> None:
    submission = full(offline)
    server = submission.benchmarks[DATACENTER]["jw2"]["Server"]
    assert server.accuracy is not None
    resolved = server.accuracy.result.resolved
    profile = resolved.profile.model_copy(update={"engine_options": {"tpot_ms": 9.0}})
    result = server.accuracy.result.model_copy(update={"resolved": resolved.model_copy(update={"profile": profile})})
    other = replace(server, accuracy=replace(server.accuracy, result=result))
    submission.benchmarks[DATACENTER]["jw2"]["Server"] = other
    (sentence,) = missing(submission, "open")
    assert "had different engine options or generation settings" in sentence


def test_a_system_that_changed_between_its_runs_is_reported(offline: Path) -> None:
    def newer(result: NodeResult) -> NodeResult:
        assert result.environment is not None
        return result.model_copy(update={"environment": result.environment.model_copy(update={"driver": "580.1"})})

    assert "the driver was 580.1 in the run" in " ".join(missing(full(offline, newer), "open"))


def test_what_many_nodes_lack_is_said_once(offline: Path, server: Path) -> None:
    sentences = missing(gather_parts([offline, server]), "open")
    assert len([sentence for sentence in sentences if sentence.startswith("Server")]) == 1
    part: Part = gather_parts([offline], ["jw2"]).parts("jw2")[0]
    unlike = {"a": {"Offline": Scenario(part, part)}, "b": {"Offline": Scenario(part)}}
    assert " --limit b" in " ".join(missing(Submission({DATACENTER: unlike}, ()), "open"))


@pytest.mark.parametrize(
    ("benchmark", "there", "division", "absent"),
    [
        (DATACENTER, {"Offline", "Server"}, "closed", []),
        (DATACENTER, {"Offline", "Interactive"}, "closed", []),
        (DATACENTER, {"Offline"}, "closed", [("Server", "Interactive")]),
        (DATACENTER, {"Server"}, "closed", [("Offline",)]),
        (DATACENTER, {"Server"}, "open", []),
        (EDGE, {"Offline"}, "closed", [("SingleStream",)]),
        (EDGE, {"Offline", "SingleStream"}, "closed", []),
        (EDGE, set(), "open", [("SingleStream", "Offline")]),
    ],
)
def test_a_division_asks_for_scenarios(benchmark: Any, there: set[str], division: Any, absent: list[Any]) -> None:
    assert lacking(there, benchmark, division) == absent
