"""Accuracy and compliance runs that LoadGen drives."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmark.errors import InputError
from benchmark.node.accuracy import read_answers
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Conditions, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import load_dataset, make_scenario
from benchmark.resolve import resolve
from tests.unit.node.loadgen_runs import LABELS, PROFILE, SHORT, asked, measure


@pytest.mark.parametrize("scenario", LABELS)
def test_for_accuracy_every_prompt_is_answered_once(tmp_path: Path, scenario: str) -> None:
    profile = asked()
    engine = make_engine("simulated", profile.settings, profile.profile.generation, {"ttft_ms": 1})
    engine.load()
    prompts = load_dataset("curated", profile.settings, {}).prompts
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    reported: list[float] = []
    conditions = Conditions(tmp_path, 50, "accuracy", "accuracy_", expected_ms=4, begins=reported.append)
    outcome = make_scenario("loadgen", {"scenario": scenario, **SHORT}).run(
        Workload(prompts, None, 0), recorder, conditions
    )
    assert outcome.loadgen is not None
    assert (outcome.loadgen.mode, outcome.loadgen.valid) == ("AccuracyOnly", None)
    assert outcome.loadgen.scenario == scenario
    assert reported == [{"Server": 20 / 50, "Offline": 0, "SingleStream": 20 * 4 / 1000}[scenario]]
    assert sorted(sample.prompt_id for sample in recorder.samples) == sorted(prompt.id for prompt in prompts)
    answers = read_answers(tmp_path / "accuracy_mlperf_log_accuracy.json")
    assert {prompts[number].id: ids for number, ids in answers.items()} == {
        sample.prompt_id: sample.token_ids for sample in recorder.samples
    }


def test_answers_are_logged_as_the_compliance_tests_read_them(tmp_path: Path) -> None:
    profile = asked()
    engine = make_engine("simulated", profile.settings, profile.profile.generation, {"ttft_ms": 1})
    engine.load()
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    conditions = Conditions(tmp_path, 200, purpose="accuracy", prefix="accuracy_")
    prompts = load_dataset("curated", profile.settings, {}).prompts
    make_scenario("loadgen", PROFILE["scenario_options"]).run(Workload(prompts, None, 0), recorder, conditions)
    entries = json.loads((tmp_path / "accuracy_mlperf_log_accuracy.json").read_text())
    assert len(entries) == len(prompts)
    answers = {sample.prompt_id: list(sample.token_ids) for sample in recorder.samples}
    for entry in entries:
        ids = np.frombuffer(bytes.fromhex(entry["data"]), np.int32).tolist()
        assert ids == answers[prompts[entry["qsl_idx"]].id]
        assert np.frombuffer(bytes.fromhex(entry["token_data"]), np.int32).tolist() == ids[:1]
        assert entry["token_count"] == len(ids)


@pytest.mark.parametrize("scenario", LABELS)
def test_an_audit_run_follows_the_measurement_and_is_judged(tmp_path: Path, scenario: str) -> None:
    options = {"scenario": scenario, **SHORT}
    result = measure(
        tmp_path,
        {"scenario_options": options, "engine_options": {"ttft_ms": 2, "tpot_ms": 0.1}},
        benchmark_audit="TEST06",
        benchmark_target_qps=200,
    )
    audit = result.audit
    assert audit is not None
    assert audit.passed, audit.checks
    assert audit.loadgen.settings["accuracy_log_rng_seed"] == 720381539243781796
    assert audit.loadgen.settings["min_duration_ms"] == 0
    assert audit.loadgen.mode == "PerformanceOnly"
    assert audit.answers >= 50
    names = ["mlperf_log_detail.txt", "mlperf_log_summary.txt", "mlperf_log_accuracy.json", "user.conf"]
    assert all((tmp_path / f"TEST06_{name}").is_file() for name in [*names, "samples.jsonl", "audit.config"])
    entries = json.loads((tmp_path / "TEST06_mlperf_log_accuracy.json").read_text())
    assert all(entry.get("token_data") for entry in entries) is (scenario != "Offline")
    assert result.verdict is not None
    assert any(check.metric == "TEST06: passed" and check.passed for check in result.verdict.checks)
    # The measurement itself is not the audit's.
    assert result.loadgen is not None
    assert result.loadgen.settings["accuracy_log_sampling_target"] == 0


def test_an_audit_needs_loadgen() -> None:
    with pytest.raises(InputError, match="benchmark_audit is TEST06, but LoadGen does not drive profile quick"):
        resolve({"benchmark_audit": "TEST06"})
