"""What LoadGen is asked for: limits, seeds, and how many queries that comes to."""

import re
from pathlib import Path

import mlperf_loadgen
import pytest

from benchmark.errors import InputError
from benchmark.loadgen_options import EQUALLY, PLANNED, Options
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Conditions, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import load_dataset, make_scenario
from benchmark.profiles import load_profile
from tests.unit.node.loadgen_runs import PROFILE, SHORT, asked, measure


def test_unknown_options_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="scenario_options of the loadgen scenario: scenario is 'MultiStream': it must be"
    ):
        measure(tmp_path, {"scenario_options": {"scenario": "MultiStream"}})


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
