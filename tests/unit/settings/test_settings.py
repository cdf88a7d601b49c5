from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.resolve import resolve


def problems(variables: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(variables)
    return str(caught.value).splitlines()


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
        ("python_env_dir", "envs/llm", "python_env_dir is 'envs/llm': it must begin with / or ~/"),
        ("python_env_dir", "$HOME/llm", "python_env_dir is '$HOME/llm': it must begin with / or ~/"),
        ("python_env_code_dir", "/a:b", "python_env_code_dir is '/a:b': it must not contain a colon"),
        ("vllm_dir", "/", "vllm_dir is '/': it must not be the root"),
        ("benchmark_endpoint_urls", "http://a", "benchmark_endpoint_urls is 'http://a': it must be a list."),
        ("benchmark_endpoint_urls", ["ftp://a"], "benchmark_endpoint_urls is ['ftp://a']: each must be a server's"),
        ("benchmark_endpoint_urls", ["http://"], "benchmark_endpoint_urls is ['http://']: each must be a server's"),
        ("benchmark_endpoint_urls", ["http://a:x"], "benchmark_endpoint_urls is ['http://a:x']: each must be"),
        ("benchmark_endpoint_urls", ["http://a"] * 2, "benchmark_endpoint_urls is ['http://a', 'http://a']: the same"),
        ("benchmark_endpoint_api", "grpc", "benchmark_endpoint_api is 'grpc': it must be auto, completions or chat."),
        ("benchmark_endpoint_health", "health", "benchmark_endpoint_health is 'health': it must be text that matches"),
        (
            "benchmark_endpoint_query_timeout_s",
            0,
            "benchmark_endpoint_query_timeout_s is 0: it must be greater than 0.",
        ),
        ("benchmark_modell", "a/b", "benchmark_modell is not a setting: did you mean benchmark_model?"),
        ("benchmark_timeout_s", True, "benchmark_timeout_s is True: it must be a number."),
        ("preflight_gpus", True, "preflight_gpus is True: it must be a number."),
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


@pytest.mark.parametrize("text", ["1800", 1800])
def test_numbers_may_come_as_text_from_the_command_line(text: Any) -> None:
    assert resolve({"benchmark_timeout_s": text}).settings.benchmark_timeout_s == 1800


def test_equal_settings_have_equal_hashes() -> None:
    assert resolve({}).sha256() == resolve({"benchmark_dtype": "float16"}).sha256()
    assert resolve({}).sha256() != resolve({"benchmark_dtype": "float32"}).sha256()


@pytest.mark.parametrize(("given", "meant"), [(True, "on"), (False, "off"), ("only", "only"), ("on", "on")])
def test_a_switch_is_what_yaml_reads_on_and_off_as(given: Any, meant: str) -> None:
    assert resolve({"benchmark_probes": given}).settings.benchmark_probes == meant
