"""What goes with the engine vllm is decided on the controller, before a node is touched."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.provisioned import ENGINES
from benchmark.resolve import resolve

VLLM = {"benchmark_engine": "vllm"}


def test_one_word_is_enough() -> None:
    resolved = resolve({**VLLM, "benchmark_profile": "mlperf-server"})
    assert (resolved.profile.engine, resolved.profile.engine_options) == ("vllm", {})
    assert ENGINES["vllm"].setting(resolved.settings, "requirements") == "requirements-vllm.txt"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"benchmark_endpoint_start": "vllm serve x"}, "The engine vllm starts a server of its own"),
        ({"benchmark_endpoint_urls": ["http://127.0.0.1:8000"]}, "The engine vllm starts a server of its own"),
        ({"benchmark_device": "cpu"}, "benchmark_device is cpu, and requirements-vllm.txt locks vLLM's build for CUDA"),
        (
            {"python_env_wheelhouse": "wheels"},
            "(make wheelhouse WHEELHOUSE=wheelhouse-vllm REQUIREMENTS=requirements-vllm.txt",
        ),
        (
            {"benchmark_replicas": 3, "benchmark_engine_options": {"tensor_parallel_size": 2}},
            "benchmark_replicas is 3 and one copy of the model uses 2 GPUs ",
        ),
        (
            {"benchmark_engine_options": {"gpu_memory": 1}},
            "gpu_memory is not an option of the engine vllm: did you mean gpu_memory_utilization?",
        ),
        (
            {"benchmark_engine_options": {"gpu_memory_utilization": 1.1}},
            "gpu_memory_utilization is 1.1: it must be at most 1.",
        ),
        ({"benchmark_engine_options": {"arguments": ["--port=1"]}}, "--port is set by the run"),
        (
            {"benchmark_engine_options": {"arguments": ["--served_model_name", "x"]}},
            "--served-model-name is set by the",
        ),
        (
            {"benchmark_engine_options": {"arguments": ["--enable-prefix-caching"]}},
            "arguments: --enable-prefix-caching answers repeated prompts without computing them: leave it out",
        ),
        ({"benchmark_engine_options": {"arguments": ["--enable_prefix_caching=true"]}}, "--enable_prefix_caching=true"),
        ({"benchmark_engine_options": {"arguments": ["--enable-prefix"]}}, "arguments: --enable-prefix answers"),
        ({"vllm_wheelhouses": "x"}, "vllm_wheelhouses is not a setting: did you mean vllm_wheelhouse?"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve({**VLLM, **settings})
    (problem,) = str(caught.value).splitlines()
    assert said in problem


@pytest.mark.parametrize(
    "settings",
    [
        {"benchmark_device": "cpu", "vllm_requirements": "cpu.txt"},
        {"python_env_wheelhouse": "wheels", "vllm_wheelhouse": "more"},
        {"benchmark_replicas": 4, "benchmark_engine_options": {"tensor_parallel_size": 2}},
        {"benchmark_engine_options": {"arguments": ["--no-enable-prefix-caching", "--enable-prompt-embeds"]}},
    ],
)
def test_what_can_work_is_not(settings: dict[str, Any]) -> None:
    assert resolve({**VLLM, **settings}).profile.engine == "vllm"


def test_a_profile_may_want_prefix_caching(tmp_path: Path) -> None:
    profile = tmp_path / "cached.yaml"
    words = "name: cached\nversion: 1\nscenario: closed_loop\nengine: vllm\ndataset: curated\nprefix_caching: true\n"
    profile.write_text(words + "engine_options: {arguments: [--enable-prefix-caching]}\n")
    assert resolve({"benchmark_profile": str(profile)}).profile.prefix_caching


def test_other_engines_are_left_alone() -> None:
    assert resolve({"python_env_wheelhouse": "wheels", "benchmark_device": "cpu"}).profile.engine == "continuous"


def test_options_have_defaults() -> None:
    options = ENGINES["vllm"].check_options({}).model_dump()
    assert (options["gpu_memory_utilization"], options["tensor_parallel_size"], options["arguments"]) == (0.9, 1, [])
