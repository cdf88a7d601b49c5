from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.resolve import resolve, resolve_nodes
from benchmark.settings import RUN_WIDE
from benchmark.settings.by_hand import from_environment
from tests.unit.settings.test_settings import problems
from tests.unit.test_profiles import OWN


def test_a_wheelhouse_and_an_index_of_torch_exclude_each_other() -> None:
    both = {"python_env_wheelhouse": "wheels", "python_env_torch_index_url": "https://index.example"}
    (problem,) = problems(both)
    assert problem.startswith(
        "python_env_wheelhouse is set, so no node uses an index: leave python_env_torch_index_url"
    )


def test_a_limit_on_an_unknown_metric_is_found_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN + "limits: [{metric: latency_ms.p98, at_most: 1}]\n")
    (sentence,) = problems({"benchmark_profile": str(path)})
    assert (
        sentence == f"Profile {path}: limits name latency_ms.p98, which is not a metric: did you mean latency_ms.p99?"
    )


def test_no_node_is_an_error() -> None:
    with pytest.raises(InputError, match="gpu_nodes is empty"):
        resolve_nodes({})


def test_a_problem_of_many_nodes_is_reported_once() -> None:
    with pytest.raises(InputError) as caught:
        resolve_nodes({f"n{i}": {"benchmark_dtype": "int4"} for i in range(8)} | {"ok": {}})
    (line,) = str(caught.value).splitlines()
    assert line.endswith("[n0, n1, n2, n3, n4 and 3 more]")


@pytest.mark.parametrize("name", ["../evil", "a b", "", "-x", "x" * 129, "a/b", "jw2\n"])
def test_a_node_name_must_be_able_to_be_a_directory(name: str) -> None:
    with pytest.raises(InputError, match="A node's name becomes a directory"):
        resolve_nodes({name: {}})


BELONG_TO_THE_RUN: dict[str, tuple[Any, Any]] = {
    "benchmark_results_dir": ("a", "b"),
    "benchmark_prometheus_dir": ("a", "b"),
    "benchmark_fail_on_invalid": (True, False),
    "benchmark_sync_start": (True, False),
    "benchmark_sync_timeout_s": (60, 61),
    "benchmark_solo_first": (True, False),
    "benchmark_repeats": (2, 3),
    "benchmark_min_nodes": (2, "50%"),
    "benchmark_drift": ("fail", "warn"),
    "benchmark_mlperf_round": ("6.1", "6.0"),
    "benchmark_audit": ("TEST06", ""),
    "benchmark_currency": ("USD", "EUR"),
    "benchmark_system": ("cluster", "node"),
    "benchmark_driver": ("jw2", ""),
}


# What goes with one of these.
WITH_IT: dict[str, dict[str, Any]] = {
    "benchmark_system": {"benchmark_engine": "vllm"},
    "benchmark_driver": {"benchmark_engine": "vllm", "benchmark_system": "cluster"},
}


@pytest.mark.parametrize("setting", sorted({*BELONG_TO_THE_RUN, *RUN_WIDE}))
def test_what_belongs_to_the_run_is_the_same_on_all_nodes(setting: str) -> None:
    one, other = BELONG_TO_THE_RUN[setting]
    profile = {"benchmark_profile": "mlperf-offline", **WITH_IT.get(setting, {})}
    with pytest.raises(InputError, match=f"{setting} belongs to the whole run and differs between nodes"):
        resolve_nodes({"jw2": {setting: one, **profile}, "jw3": {setting: other, **profile}})
    assert len(resolve_nodes({"jw2": {setting: one, **profile}, "jw3": {setting: one, **profile}})) == 2


def test_environment_variables_of_a_run_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_TARGET_QPS", "1.5")
    monkeypatch.setenv("HF_HOME", "/data/hf")
    settings = resolve(from_environment()).settings
    assert (settings.benchmark_target_qps, settings.hf_cache_dir) == (1.5, "/data/hf")


def test_measuring_alone_needs_nodes_that_wait_for_each_other() -> None:
    with pytest.raises(InputError, match="benchmark_solo_first needs benchmark_sync_start"):
        resolve({"benchmark_solo_first": True, "benchmark_sync_start": False})
    assert resolve({"benchmark_solo_first": True}).settings.benchmark_solo_first


def test_probes_alone_are_the_profile_hardware() -> None:
    only = resolve({"benchmark_probes": "only", "benchmark_profile": "mlperf-server"})
    assert only.profile == resolve({"benchmark_profile": "hardware"}).profile
    assert not only.profile.loads_model
    assert not only.profile.measures_queries


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmark_profile": "hardware", "benchmark_probes": "off"}, "benchmark_probes is off, but the profile"),
        ({"benchmark_profile": "hardware", "benchmark_repeats": 3}, "benchmark_repeats is set, but the profile"),
        ({"benchmark_profile": "hardware", "benchmark_accuracy": "only"}, "benchmark_accuracy is set, but the profile"),
        ({"benchmark_profile": "hardware", "benchmark_solo_first": True}, "benchmark_solo_first is set, but"),
        (
            {"benchmark_profile": "hardware", "benchmark_engine": "sequential"},
            "benchmark_engine is sequential, but the profile hardware uses no model",
        ),
        ({"benchmark_engine": "none"}, "benchmark_engine is none, but the profile quick uses a model"),
        ({"benchmark_probes": "yes please"}, "benchmark_probes is 'yes please'"),
        ({"benchmark_probe_floors": {"device_memory_read": 0}}, "benchmark_probe_floors.device_memory_read is 0"),
    ],
)
def test_what_probes_cannot_do_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve(given)


def test_a_self_test_needs_neither_model_nor_gpu() -> None:
    asked = resolve({"benchmark_profile": "self-test", "benchmark_device": "cuda"})
    assert (asked.profile.needs_model, asked.settings.benchmark_device) == (False, "cpu")
    # With an engine that loads a model it is like any other.
    other = resolve({"benchmark_profile": "self-test", "benchmark_engine": "sequential"})
    assert (other.profile.needs_model, other.settings.benchmark_device) == (True, "cuda")
    assert not resolve({"benchmark_profile": "hardware"}).profile.needs_model
    assert resolve({"benchmark_profile": "hardware"}).settings.benchmark_device == "cuda"
