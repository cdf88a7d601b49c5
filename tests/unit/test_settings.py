from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.resolve import from_environment, resolve, resolve_nodes
from benchmark.settings import RUN_WIDE, Settings, needed_nodes
from tests.unit.test_profiles import OWN


def problems(variables: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(variables)
    return str(caught.value).splitlines()


def test_a_wheelhouse_and_an_index_of_torch_exclude_each_other() -> None:
    both = {"python_env_wheelhouse": "wheels", "python_env_torch_index_url": "https://index.example"}
    (problem,) = problems(both)
    assert problem.startswith(
        "python_env_wheelhouse is set, so no node asks an index: leave python_env_torch_index_url"
    )


def test_defaults() -> None:
    settings = resolve({}).settings
    assert settings.benchmark_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert settings.benchmark_model_revision == "be673f326cab4cd22ccfef76109faf68e41aa5f1"
    assert (settings.benchmark_dtype, settings.benchmark_device) == ("float16", "cuda")
    assert (settings.benchmark_target_qps, settings.benchmark_timeout_s) == (0.5, 1800)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "benchmark_profile",
            "quack",
            "benchmark_profile is 'quack', which is not a profile: did you mean quick? Profiles: hardware, mlperf",
        ),
        ("benchmark_profile", "", "benchmark_profile is '': it must not be empty."),
        ("benchmark_profile", 7, "benchmark_profile is 7: it must be text (in quotes)."),
        ("benchmark_model", "llama", "benchmark_model is 'llama': neither a hub id such as 'org/name' nor an absolute"),
        ("benchmark_model_revision", "", "benchmark_model_revision is ''"),
        ("benchmark_dtype", "int4", "benchmark_dtype is 'int4': it must be float16, bfloat16 or float32."),
        ("benchmark_device", "tpu", "benchmark_device is 'tpu': it must be cuda or cpu."),
        ("benchmark_target_qps", 0, "benchmark_target_qps is 0: a number greater than 0, or auto, is needed."),
        ("benchmark_target_qps", "fast", "benchmark_target_qps is 'fast': a number greater than 0"),
        ("benchmark_target_qps", float("nan"), "benchmark_target_qps is not a finite number"),
        ("benchmark_target_qps", float("inf"), "benchmark_target_qps is not a finite number"),
        ("benchmark_timeout_s", 0, "benchmark_timeout_s is 0: it must be at least 1."),
        ("benchmark_timeout_s", 1.5, "benchmark_timeout_s is 1.5: it must be a whole number."),
        (
            "benchmark_fail_on_invalid",
            "perhaps",
            "benchmark_fail_on_invalid is 'perhaps': it must be true or false.",
        ),
        ("benchmark_sync_start", "soon", "benchmark_sync_start is 'soon': it must be true or false."),
        ("benchmark_sync_timeout_s", 0, "benchmark_sync_timeout_s is 0: it must be at least 1."),
        ("benchmark_min_nodes", 0, "benchmark_min_nodes is 0: a whole number greater than 0, or a percentage such as"),
        ("benchmark_min_nodes", 1.5, "benchmark_min_nodes is 1.5: a whole number greater than 0"),
        ("benchmark_min_nodes", True, "benchmark_min_nodes is True: a whole number greater than 0"),
        ("benchmark_min_nodes", "0%", "benchmark_min_nodes is '0%': a whole number greater than 0"),
        ("benchmark_min_nodes", "101%", "benchmark_min_nodes is '101%': a whole number greater than 0"),
        ("benchmark_min_nodes", "half", "benchmark_min_nodes is 'half': a whole number greater than 0"),
        ("benchmark_results_dir", "", "benchmark_results_dir is ''"),
        ("hf_cache_source", "usb", "hf_cache_source is 'usb': it must be hub, controller or none."),
        ("hf_cache_min_free_gb", -1, "hf_cache_min_free_gb is -1: it must be at least 0."),
        ("python_env_timeout_s", 0, "python_env_timeout_s is 0"),
        ("benchmark_endpoint_urls", "http://a", "benchmark_endpoint_urls is 'http://a': it must be a list."),
        ("benchmark_endpoint_urls", ["ftp://a"], "benchmark_endpoint_urls is ['ftp://a']: each has to be a server's"),
        ("benchmark_endpoint_urls", ["http://"], "benchmark_endpoint_urls is ['http://']: each has to be a server's"),
        ("benchmark_endpoint_urls", ["http://a:x"], "benchmark_endpoint_urls is ['http://a:x']: each has to be"),
        ("benchmark_endpoint_urls", ["http://a"] * 2, "benchmark_endpoint_urls is ['http://a', 'http://a']: the same"),
        ("benchmark_endpoint_api", "grpc", "benchmark_endpoint_api is 'grpc': it must be auto, completions or chat."),
        ("benchmark_endpoint_health", "health", "benchmark_endpoint_health is 'health': it must be text that matches"),
        (
            "benchmark_endpoint_query_timeout_s",
            0,
            "benchmark_endpoint_query_timeout_s is 0: it must be greater than 0.",
        ),
        ("benchmark_modell", "a/b", "benchmark_modell is not a setting: did you mean benchmark_model?"),
        ("colour", "red", "colour is not a setting."),
    ],
)
def test_each_kind_of_bad_setting_is_one_sentence(name: str, value: Any, said: str) -> None:
    (sentence,) = problems({name: value})
    assert sentence.startswith(said)
    assert sentence.endswith((".", "?"))


def test_a_refused_secret_is_not_repeated() -> None:
    (sentence,) = problems({"hf_cache_token": "hf_0123456789abcdefghij"})
    assert "hf_0123" not in sentence


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    (sentence,) = problems({"benchmark_endpoint_urls": ["http://me:hidden@host:8000"]})
    assert "set benchmark_endpoint_api_key or benchmark_endpoint_headers" in sentence
    assert "hidden" not in sentence


def test_all_problems_are_reported_at_once() -> None:
    assert len(problems({"benchmark_dtype": "x", "benchmark_device": "y", "benchmark_profile": "z"})) == 3


def test_a_limit_on_an_unknown_metric_is_found_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN + "limits: [{metric: latency_ms.p98, at_most: 1}]\n")
    (sentence,) = problems({"benchmark_profile": str(path)})
    assert (
        sentence == f"Profile {path}: limits name latency_ms.p98, which is not a metric: did you mean latency_ms.p99?"
    )


@pytest.mark.parametrize("text", ["1800", 1800])
def test_numbers_may_come_as_text_from_the_command_line(text: Any) -> None:
    assert resolve({"benchmark_timeout_s": text}).settings.benchmark_timeout_s == 1800


@pytest.mark.parametrize(
    ("given", "kept"), [(2, 2), ("2", 2), ("80%", "80%"), (" 80 % ", "80%"), ("0.5%", "0.5%"), ("100%", "100%")]
)
def test_how_many_nodes_are_enough_is_a_number_or_a_percentage(given: Any, kept: Any) -> None:
    settings = resolve({"benchmark_min_nodes": given}).settings
    assert settings.benchmark_min_nodes == kept
    assert type(settings.benchmark_min_nodes) is type(kept)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("min_nodes", "asked", "needed"),
    [
        ("100%", 7, 7),
        ("50%", 7, 4),
        ("50%", 2, 1),
        ("1%", 3, 1),
        ("0.1%", 2000, 2),
        (3, 7, 3),
        ("14%", 50, 7),
    ],
)
def test_a_percentage_of_nodes_is_rounded_up(min_nodes: Any, asked: int, needed: int) -> None:
    assert needed_nodes(min_nodes, asked) == needed


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


def test_equal_settings_have_equal_hashes() -> None:
    assert resolve({}).sha256() == resolve({"benchmark_dtype": "float16"}).sha256()
    assert resolve({}).sha256() != resolve({"benchmark_dtype": "float32"}).sha256()


def test_environment_variables_of_a_run_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_TARGET_QPS", "1.5")
    monkeypatch.setenv("HF_HOME", "/data/hf")
    settings = resolve(from_environment()).settings
    assert (settings.benchmark_target_qps, settings.hf_cache_dir) == (1.5, "/data/hf")


def test_measuring_alone_needs_nodes_that_wait_for_each_other() -> None:
    with pytest.raises(InputError, match="benchmark_solo_first needs benchmark_sync_start"):
        resolve({"benchmark_solo_first": True, "benchmark_sync_start": False})
    assert resolve({"benchmark_solo_first": True}).settings.benchmark_solo_first


@pytest.mark.parametrize(("given", "meant"), [(True, "on"), (False, "off"), ("only", "only"), ("on", "on")])
def test_a_switch_is_what_yaml_reads_on_and_off_as(given: Any, meant: str) -> None:
    assert resolve({"benchmark_probes": given}).settings.benchmark_probes == meant


def test_probes_alone_are_the_profile_hardware() -> None:
    only = resolve({"benchmark_probes": "only", "benchmark_profile": "mlperf-server"})
    assert only.profile == resolve({"benchmark_profile": "hardware"}).profile
    assert not only.profile.loads_model
    assert not only.profile.measures_queries


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmark_profile": "hardware", "benchmark_probes": "off"}, "benchmark_probes is off, and the profile"),
        ({"benchmark_profile": "hardware", "benchmark_repeats": 3}, "benchmark_repeats is set, and the profile"),
        ({"benchmark_profile": "hardware", "benchmark_accuracy": "only"}, "benchmark_accuracy is set, and the profile"),
        ({"benchmark_profile": "hardware", "benchmark_solo_first": True}, "benchmark_solo_first is set, and"),
        (
            {"benchmark_profile": "hardware", "benchmark_engine": "sequential"},
            "benchmark_engine is sequential, and the profile hardware asks no model",
        ),
        ({"benchmark_engine": "none"}, "benchmark_engine is none, and the profile quick asks a model"),
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
