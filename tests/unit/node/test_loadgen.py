"""MLCommons' own LoadGen, driving an engine whose delays are known."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlperf_loadgen
import numpy as np
import pytest

from benchmark.columns import Columns
from benchmark.errors import InputError, RunError
from benchmark.files import read_record, read_samples
from benchmark.loadgen_log import read_result
from benchmark.loadgen_options import EQUALLY, PLANNED, Options
from benchmark.metrics import compute
from benchmark.node.accuracy import read_answers
from benchmark.node.interfaces import Conditions, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import load_dataset, make_scenario
from benchmark.node.replicas import make_engine
from benchmark.node.run import RunRequest, run
from benchmark.profiles import load_profile
from benchmark.records import NodeResult
from benchmark.resolve import resolve
from benchmark.rundir import RunOrder
from benchmark.settings import ResolvedSettings
from benchmark.text import figure, render_node

SHORT = {"min_duration_ms": 500, "min_query_count": 40}
PROFILE: dict[str, Any] = {
    "scenario": "loadgen",
    "scenario_options": {"scenario": "Server", **SHORT},
    "engine_options": {"ttft_ms": 4, "tpot_ms": 0.5},
    "samples": None,
    "warmup": 1,
    "limits": [{"metric": "queries.failed", "at_most": 0}],
}


def asked(profile: dict[str, Any] | None = None, **settings: Any) -> ResolvedSettings:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_target_qps": 60})
    changed = {**base.profile.model_dump(), **PROFILE, **(profile or {})}
    return ResolvedSettings.model_validate({"settings": {**base.settings.model_dump(), **settings}, "profile": changed})


def measure(directory: Path, profile: dict[str, Any] | None = None, **settings: Any) -> NodeResult:
    return run(RunRequest("r1", "jw2", asked(profile, **settings), directory))


# LoadGen's label in its summary -> its key in the result, by scenario.
LABELS = {
    "Server": {
        "Completed samples per second": "result_completed_samples_per_sec",
        "Completed tokens per second": "result_completed_tokens_per_second",
        "Scheduled samples per second": "result_scheduled_samples_per_sec",
        "99.00 percentile first token latency (ns)": "result_first_token_99.00_percentile_latency_ns",
        "99.00 percentile time to output token (ns)": "result_time_per_output_token_99.00_percentile_ns",
    },
    "Offline": {
        "Samples per second": "result_samples_per_second",
        "Tokens per second": "result_tokens_per_second",
    },
    "SingleStream": {
        "QPS w/ loadgen overhead": "result_qps_with_loadgen_overhead",
        "TPS w/ loadgen overhead": "result_token_throughput_with_loadgen_overhead",
        "90.00 percentile latency (ns)": "result_90.00_percentile_latency_ns",
    },
}


@pytest.mark.parametrize("scenario", LABELS)
def test_the_result_says_what_loadgen_says_to_the_last_digit(tmp_path: Path, scenario: str) -> None:
    result = measure(tmp_path, {"scenario_options": {"scenario": scenario, **SHORT}})
    loadgen = result.loadgen
    assert loadgen is not None
    reported, printed = loadgen.summary, (tmp_path / "mlperf_log_summary.txt").read_text()
    for label, key in LABELS[scenario].items():
        assert re.search(rf"^{re.escape(label)}\s*: {re.escape(reported[label])}$", printed, re.M), label
        # The detailed log's six digits and the summary's are rounded apart.
        unit = 10.0 ** -len(reported[label].partition(".")[2])
        assert float(str(loadgen.results[key])) == pytest.approx(float(reported[label]), abs=0.51 * unit, rel=1e-5), (
            label
        )
    assert loadgen.valid is (reported["Result is"] == "VALID")
    assert loadgen.constraints["early stopping satisfied" if scenario != "Offline" else "min queries satisfied"] is (
        reported["Early stopping satisfied" if scenario != "Offline" else "Min queries satisfied"] == "Yes"
    )
    assert result.verdict is not None
    assert result.verdict.valid is loadgen.valid
    metrics = result.metrics
    assert metrics is not None
    assert metrics.qps == loadgen.results[next(iter(LABELS[scenario].values()))]
    assert metrics.queries.planned == metrics.queries.completed >= 40
    assert result.warmup == 1


def test_times_from_the_scheduled_time_are_loadgens(tmp_path: Path) -> None:
    result = measure(tmp_path)
    samples = read_samples(tmp_path / "samples.jsonl")
    assert result.loadgen is not None
    assert result.metrics is not None
    assert result.metrics.latency_ms is not None
    assert all(sample.scheduled_ns is not None for sample in samples)
    theirs_ns = sorted(s.reported_ns - s.scheduled_ns for s in samples if s.reported_ns and s.scheduled_ns is not None)
    # The same percentile of the same queries; two readings of a clock lie between, on a machine that does other work.
    assert theirs_ns[len(theirs_ns) // 2] / 1e6 == pytest.approx(
        float(str(result.loadgen.results["result_50.00_percentile_latency_ns"])) / 1e6, abs=2
    )
    assert [sample.index for sample in sorted(samples, key=lambda s: s.index)] == list(range(len(samples)))


def test_limits_and_seeds_are_loadgens_own(tmp_path: Path) -> None:
    result = measure(tmp_path, {"scenario_options": {**PROFILE["scenario_options"], "tpot_latency_ms": 7}})
    assert result.loadgen is not None
    settings = result.loadgen.settings
    assert settings["schedule_rng_seed"] == 16159082839903944936
    assert settings["min_duration_ms"] == 500
    conf = (tmp_path / "user.conf").read_text()
    assert re.findall(r"^llama3_1-8b\.Server\.(\w+) = ([\d.]+)$", conf, re.M) == [
        ("min_duration", "500"),
        ("min_query_count", "40"),
        ("tpot_latency", "7"),
        ("target_qps", "60.0"),
        ("performance_sample_count_override", "20"),
    ]
    requested = (tmp_path / "mlperf_log_detail.txt").read_text()
    assert '"requested_server_ttft_latency", "value": 2000000000' in requested
    assert '"requested_server_tpot_latency", "value": 7000000' in requested


def test_a_failed_query_neither_hangs_loadgen_nor_is_softened(tmp_path: Path) -> None:
    result = measure(tmp_path, {"engine_options": {"ttft_ms": 1, "fail_indexes": [3]}})
    assert result.metrics is not None
    assert result.metrics.queries.failed == 1
    assert result.verdict is not None
    assert "failed queries 1 is above the allowed 0." in result.verdict.reasons


def test_an_answer_of_one_token_is_not_reported_as_fine(tmp_path: Path) -> None:
    result = measure(tmp_path, {"generation": {"max_new_tokens": 1, "min_new_tokens": 1}})
    assert result.loadgen is not None
    assert result.loadgen.errors
    assert result.verdict is not None
    assert any(reason.startswith("LoadGen: no errors: no.") for reason in result.verdict.reasons)
    assert result.metrics is not None
    assert result.metrics.tpot_ms is None


def test_unknown_options_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="scenario_options of the loadgen scenario: scenario is 'MultiStream': it must be"
    ):
        measure(tmp_path, {"scenario_options": {"scenario": "MultiStream"}})


def start(directory: Path, profile: dict[str, Any]) -> subprocess.Popen[bytes]:
    order = RunOrder(run_id="r1", node="jw2", resolved=asked(profile))
    (directory / "order.json").write_text(order.model_dump_json())
    command = [sys.executable, "-m", "benchmark", "run", "--order", str(directory / "order.json")]
    with (directory / "benchmark.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def written(directory: Path) -> NodeResult:
    (path,) = directory.glob("mlperf_datacenter_jw2_*.json")
    return read_record(path, NodeResult)


def test_a_broken_engine_ends_the_run_with_its_message(tmp_path: Path) -> None:
    # LoadGen would wait: ten minutes for its schedule, and for ever for the query that is lost.
    options = {"scenario": "Server", "min_duration_ms": 600_000}
    process = start(tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 1, "break_at": 30}})
    assert process.wait(timeout=60) == 4
    result = written(tmp_path)
    assert (result.status, result.stage) == ("failed", "measuring")
    assert result.error == "The simulated engine was told to break."
    assert result.metrics is not None
    assert result.metrics.queries.completed >= 20


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_a_stopped_run_keeps_what_it_measured(tmp_path: Path, scenario: str) -> None:
    options = {"scenario": scenario, "min_duration_ms": 600_000}
    process = start(tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 10, "slots": 2}})
    path = tmp_path / "samples.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, (tmp_path / "benchmark.log").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 4
    result = written(tmp_path)
    assert (result.status, result.error) == ("interrupted", "The run was stopped by SIGTERM.")
    samples = read_samples(path)
    assert result.metrics is not None
    assert result.metrics.queries.completed == len(samples) >= 5
    assert result.metrics.queries.unfinished > 0 or scenario == "Server"


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


@pytest.mark.parametrize(("scenario", "queries"), [("Server", 140), ("Offline", 140), ("SingleStream", 180)])
def test_as_many_queries_are_issued_as_a_plan_reckons_with(tmp_path: Path, scenario: str, queries: int) -> None:
    profile, rate, seconds = asked(), 610, 0.2
    engine = make_engine("simulated", profile.settings, profile.profile.generation, {"ttft_ms": 1, "tpot_ms": 0})
    engine.load()
    prompts = load_dataset("curated", profile.settings, {}).prompts
    given = {"scenario": scenario, "min_duration_ms": 1000 * seconds, "min_query_count": 1}
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    conditions = Conditions(tmp_path, rate, "performance", "", expected_ms=1000 / rate)
    make_scenario("loadgen", given).run(Workload(prompts, None, 0), recorder, conditions)
    options = Options.model_validate(given)
    planned = options.issued(PLANNED[scenario] * seconds * rate, len(prompts), options.model in EQUALLY)
    assert (len(prompts), planned, len(recorder.samples)) == (20, queries, queries)


@pytest.mark.parametrize("model", ["llama3_1-8b", "llama3_1-8b-interactive", "llama3_1-8b-edge", "llama2-7b"])
def test_which_prompts_come_equally_often_is_loadgens(model: str) -> None:
    settings = mlperf_loadgen.TestSettings()
    settings.FromConfig("", model, "Offline", 0)
    assert bool(settings.sample_concatenate_permutation) == (model in EQUALLY)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a few kilobytes takes root to mount")
def test_a_full_disk_ends_the_run_and_there_is_room_to_say_so(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], check=True)
    try:
        options = {"scenario": "Server", "min_duration_ms": 600_000}
        process = start(tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 1}})
        assert process.wait(timeout=120) == 4
        result = written(tmp_path)
        assert (result.status, result.stage) == ("failed", "measuring")
        assert result.error is not None
        assert "No space left on device" in result.error
        assert result.metrics is not None
        assert result.metrics.queries.completed > 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_log_that_loadgen_did_not_end_is_a_sentence(tmp_path: Path) -> None:
    measure(tmp_path)
    path = tmp_path / "mlperf_log_detail.txt"
    text = path.read_text()
    path.write_text(text[: text.index("result_validity")])
    with pytest.raises(InputError, match="not an entry of LoadGen's log"):
        read_result(tmp_path)
    kept = [line for line in text.splitlines() if "num_errors" not in line]
    path.write_text("\n".join(line for line in kept if "result_completed_tokens_per_second" not in line))
    with pytest.raises(InputError, match="LoadGen did not end its log"):
        read_result(tmp_path)
    # LoadGen counts its errors since April 2025.
    path.write_text("\n".join(kept))
    assert read_result(tmp_path).valid is False


def marked(line: str, **changes: Any) -> str:
    entry = json.loads(line.removeprefix(":::MLLOG "))
    return ":::MLLOG " + json.dumps(entry | changes)


def test_logs_of_others_are_read_as_mlcommons_reads_them(tmp_path: Path) -> None:
    measure(tmp_path)
    own = read_result(tmp_path)
    path = tmp_path / "mlperf_log_detail.txt"
    lines = path.read_text().splitlines()
    (qps,) = (line for line in lines if "result_completed_samples_per_sec" in line)
    # Of a key that comes twice the first counts.
    path.write_text("\n".join([*lines, marked(qps, value=1e9)]))
    assert read_result(tmp_path) == own
    # An ordinary line that is marked as an error is one, and a figure all the same.
    path.write_text("\n".join(line.replace('"is_error": false', '"is_error": true') for line in lines))
    others = read_result(tmp_path)
    assert others.results == own.results
    assert others.settings == own.settings
    assert others.error_count > len(others.errors) == 100
    path.write_text(
        "\n".join(marked(line, value="MultiStream") if '"effective_scenario"' in line else line for line in lines)
    )
    with pytest.raises(InputError, match="it is of the scenario MultiStream, and only Server, Offline, SingleStream"):
        read_result(tmp_path)


def test_every_error_of_loadgen_is_a_reason(tmp_path: Path) -> None:
    # More answers of one token than errors are kept.
    few = {"max_new_tokens": 1, "min_new_tokens": 0}
    options = {"scenario": "Server", "min_duration_ms": 100, "min_query_count": 120}
    result = measure(tmp_path, {"generation": few, "scenario_options": options}, benchmark_target_qps=400)
    log = (tmp_path / "mlperf_log_detail.txt").read_text()
    logged = re.search(r'"num_errors", "value": (\d+)', log)
    assert logged is not None
    assert result.loadgen is not None
    assert result.loadgen.error_count == int(logged[1]) >= 120
    assert result.verdict is not None
    assert not result.verdict.valid
    (reason,) = (reason for reason in result.verdict.reasons if reason.startswith("LoadGen: no errors: no."))
    assert f"{logged[1]} errors in all" in reason
    assert result.metrics is not None
    assert result.metrics.tpot_ms is None


def test_singlestream_is_planned_by_the_warm_ups_latency(tmp_path: Path) -> None:
    # By LoadGen's own 10 ms it would plan four times as many as are needed.
    options = {"scenario": "SingleStream", "min_duration_ms": 1600, "min_query_count": 10}
    result = measure(
        tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 40, "tpot_ms": 0}, "warmup": 3}
    )
    assert result.warmup_ms is not None
    assert result.warmup_ms >= 40
    conf = (tmp_path / "user.conf").read_text()
    target = re.search(r"^llama3_1-8b\.SingleStream\.target_latency = ([\d.]+)$", conf, re.M)
    assert target is not None
    assert float(target[1]) == pytest.approx(1.5 * result.warmup_ms, abs=0.001)
    assert result.loadgen is not None
    # Twice what the least duration takes at that, and every one of the twenty prompts equally often.
    planned = 2 * 1600 / float(target[1])
    issued = int(str(result.loadgen.results["result_query_count"]))
    assert issued <= planned + 2 * 20
    assert issued % 20 == 0


def test_a_latency_that_the_profile_gives_is_not_replaced(tmp_path: Path) -> None:
    measure(tmp_path, {"scenario_options": {"scenario": "SingleStream", **SHORT, "target_latency_ms": 12.5}})
    assert "llama3_1-8b.SingleStream.target_latency = 12.5\n" in (tmp_path / "user.conf").read_text()


@pytest.mark.parametrize(
    ("target_qps", "least"),
    # 662 queries at 600 s: they come at 2 queries/s, they may not at 1.2, they do not at 0.5.
    [(2, 100), (1.2, 662), (0.5, 662)],
)
def test_server_asks_for_as_many_queries_as_submissions_do(target_qps: float, least: int) -> None:
    options = Options.model_validate(load_profile("mlperf-server").scenario_options)
    text = options.user_conf(target_qps, 13368, 13368, 600)
    assert f"llama3_1-8b.Server.min_query_count = {least}\n" in text


def test_seeds_are_those_of_the_round(tmp_path: Path) -> None:
    seeds = {}
    for number in ("6.1", "6.0", "5.1"):
        (tmp_path / number).mkdir()
        result = measure(tmp_path / number, benchmark_mlperf_round=number)
        assert result.loadgen is not None
        reported = result.loadgen.settings
        seeds[number] = [reported[f"{name}_rng_seed"] for name in ("qsl", "sample_index", "schedule")]
        assert result.resolved.settings.benchmark_mlperf_round == number
    import mlperf_loadgen

    own = mlperf_loadgen.TestSettings()
    own.FromConfig("", "llama3_1-8b", "Server", 0)
    assert seeds["6.1"] == [own.qsl_rng_seed, own.sample_index_rng_seed, own.schedule_rng_seed]
    assert seeds["6.0"] == [2465351861681999779, 14276810075590677512, 3936089224930324775]
    assert seeds["5.1"] == [1780908523862526354, 14771362308971278857, 18209322760996052031]


def test_the_peak_search_finds_what_the_engine_can_do(tmp_path: Path) -> None:
    # Two at a time for 40 ms each: 50 queries/s. A queue that grows soon breaks a limit of 150 ms.
    result = measure(
        tmp_path,
        {
            "engine_options": {"ttft_ms": 32.5, "tpot_ms": 0.5, "slots": 2},
            "scenario_options": {
                "scenario": "Server",
                **SHORT,
                "ttft_latency_ms": 150,
                "probe_duration_ms": 500,
                "burst_query_count": 50,
            },
        },
        benchmark_target_qps="auto",
    )
    peak = result.peak
    assert peak is not None
    assert peak.probes
    assert result.target_qps == peak.target_qps
    valid = [probe.target_qps for probe in peak.probes if probe.valid]
    invalid = [probe for probe in peak.probes if not probe.valid]
    assert peak.target_qps == max(valid)
    assert all(probe.reasons for probe in invalid)
    assert peak.settled is (min(probe.target_qps for probe in invalid) <= max(valid) * 1.05)
    assert peak.host_vars == f"benchmark_target_qps: {peak.target_qps:.4g}"
    assert len(list(tmp_path.glob("probe*_mlperf_log_summary.txt"))) == len(peak.probes)
    assert json.loads((tmp_path / "progress.json").read_text())["state"] == "complete"


def test_a_burst_in_which_every_query_fails_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="The burst that the search begins with failed: The simulated engine was told"):
        measure(
            tmp_path,
            {"warmup": 0, "engine_options": {"fail_indexes": list(range(300))}},
            benchmark_target_qps="auto",
        )


TIMES = {
    "latency_ms": ("result_{}_percentile_latency_ns", "result_{}_latency_ns"),
    "ttft_ms": ("result_first_token_{}_percentile_latency_ns", "result_first_token_{}_latency_ns"),
    "tpot_ms": ("result_time_per_output_token_{}_percentile_ns", "result_time_to_output_token_{}"),
}


@pytest.mark.parametrize(
    ("scenario", "reported"),
    [("Server", list(TIMES)), ("SingleStream", list(TIMES)), ("Offline", ["latency_ms"])],
)
def test_the_times_shown_are_loadgens_where_it_reports_them(tmp_path: Path, scenario: str, reported: list[str]) -> None:
    result = measure(tmp_path, {"scenario_options": {"scenario": scenario, **SHORT}})
    metrics, loadgen = result.metrics, result.loadgen
    assert metrics is not None
    assert loadgen is not None
    assert metrics.times_of == "LoadGen"
    for name in reported:
        percentile, other = TIMES[name]
        keys = {f"p{rank}": percentile.format(f"{rank}.00") for rank in (50, 90, 95, 99)}
        keys |= {part: other.format(part) for part in ("mean", "min", "max")}
        for part, key in keys.items():
            assert getattr(getattr(metrics, name), part) == float(str(loadgen.results[key])) / 1e6, (name, part)
    # In Offline LoadGen tells nothing of first tokens: those that are shown are the samples'.
    samples = Columns.of(read_samples(tmp_path / "samples.jsonl"))
    own = compute(samples, metrics.queries.planned, loadgen, 0, "samples")
    assert own.times_of == "samples"
    for name in set(TIMES) - set(reported):
        assert getattr(metrics, name) == getattr(own, name)
    assert metrics.latency_ms is not None
    (line,) = (line for line in render_node(result).splitlines() if line.startswith("latency  "))
    assert figure(metrics.latency_ms.p90) in line.split()


def test_the_delay_of_reporting_the_first_token_is_limited(tmp_path: Path) -> None:
    result = measure(tmp_path, {"limits": [{"metric": "first_report_delay_ms.p99", "at_most": 0}]})
    samples = read_samples(tmp_path / "samples.jsonl")
    assert all(s.first_reported_ns and s.first_token_ns and s.first_reported_ns >= s.first_token_ns for s in samples)
    metrics, verdict = result.metrics, result.verdict
    assert metrics is not None
    assert metrics.first_report_delay_ms is not None
    assert metrics.first_report_delay_ms.count == len(samples)
    assert verdict is not None
    assert any(reason.startswith("P99 first token's report delay ") for reason in verdict.reasons)
    for name in ("mlperf-server", "mlperf-interactive", "mlperf-singlestream", "mlperf-edge-singlestream"):
        limits = {limit.metric: limit.at_most for limit in load_profile(name).limits}
        assert limits["first_report_delay_ms.p99"] == limits["report_delay_ms.p99"]


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
    with pytest.raises(InputError, match="benchmark_audit is TEST06, and LoadGen does not drive profile quick"):
        resolve({"benchmark_audit": "TEST06"})
