"""The table of what settings and profile can do together: refused on the controller, or let be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.errors import InputError
from benchmark.option_models import DATASET_OPTIONS, ENGINE_OPTIONS, SCENARIO_OPTIONS
from benchmark.profiles import plugins
from benchmark.provisioned import ENGINES
from benchmark.resolve import resolve

URL: dict[str, Any] = {"benchmark_endpoint_urls": ["http://127.0.0.1:8000"]}
CPU_VLLM: dict[str, Any] = {"benchmark_device": "cpu", "vllm_requirements": "cpu.txt"}
CLOSED = {"scenario": "closed_loop", "engine": "sequential", "dataset": "curated", "samples": 5}
SYNTHETIC = {**CLOSED, "dataset": "synthetic", "dataset_options": {"input_tokens": [100, 9000], "prompts": 4}}

REPLAY = {**CLOSED, "scenario": "schedule", "scenario_options": {"arrivals": "trace"}, "dataset": "trace"}
TALKS = {
    **CLOSED,
    "scenario": "conversations",
    "dataset": "conversations",
    "dataset_options": {"conversations": 4, "turns": [1, 3], "input_tokens": 5, "output_tokens": [2, 9]},
    "generation": {"max_new_tokens": 9},
}


def problems(settings: dict[str, Any], profile: dict[str, Any] | None, directory: Path) -> list[str]:
    """Resolve the settings with a profile of one's own where there is one; return what is refused."""
    if profile is not None:
        path = directory / "own.yaml"
        path.write_text(yaml.safe_dump({"name": "own", "version": 1, **profile}))
        settings = {**settings, "benchmark_profile": str(path)}
    try:
        resolve(settings)
    except InputError as error:
        return str(error).splitlines()
    return []


def asked(engine: str, profile: str = "quick", **settings: Any) -> dict[str, Any]:
    return {"benchmark_engine": engine, "benchmark_profile": profile, **settings}


def options(engine: str, **given: Any) -> dict[str, Any]:
    return asked(engine, benchmark_engine_options=given, **(URL if engine == "endpoint" else {}))


@pytest.mark.parametrize(
    ("settings", "profile", "said"),
    [
        # Engine options
        (
            options("sequential", batch=4),
            None,
            "benchmark_engine_options.batch is not an option of the engine sequential. Known: tensor_parallel",
        ),
        (
            options("endpoint", max_num_seqs=4),
            None,
            "the engine endpoint, which has none. max_num_seqs is an option of vllm.",
        ),
        (
            options("continuous", max_num_seqs=4),
            None,
            "max_num_seqs is not an option of the engine continuous. Known: attention, page_size",
        ),
        (options("continuous", page_size=1), None, "benchmark_engine_options.page_size is 1: it must be at least 4."),
        (
            options("continuous", num_blocks="many"),
            None,
            "benchmark_engine_options.num_blocks is 'many': it must be a whole number.",
        ),
        (
            options("continuous", attention="magic"),
            None,
            "benchmark_engine_options.attention is 'magic': it must be auto, sdpa,",
        ),
        (
            options("simulated", ttft_ms="slow"),
            None,
            "benchmark_engine_options.ttft_ms is 'slow': it must be a number.",
        ),
        (options("vllm", page_size=16), None, "page_size is not an option of the engine vllm. Known: max_model_len"),
        (
            {"benchmark_profile": "quick-generate", "benchmark_engine_options": {"page_size": 16}},
            None,
            "page_size is an option of continuous.",
        ),
        # The profile's own, in its file
        (
            {},
            {**CLOSED, "engine": "simulated", "engine_options": {"tfft_ms": 4}},
            "own.yaml: engine_options.tfft_ms is not an option of the engine simulated: did you mean ttft_ms?",
        ),
        ({}, {**SYNTHETIC, "dataset_options": {"prompts": 4}}, "own.yaml: dataset_options.input_tokens is missing."),
        (
            {},
            {**SYNTHETIC, "dataset_options": {"input_tokens": [9], "prompts": 4}},
            "is [9]: it must be a whole number",
        ),
        (
            {},
            {**CLOSED, "dataset": "cnn_dailymail", "dataset_options": {"prompt": 4}},
            "did you mean prompts? Known:",
        ),
        ({}, {**CLOSED, "dataset_options": {"seed": 4}}, "is not an option of the dataset curated, which has none."),
        # What an engine cannot do at all
        (
            options("continuous", use_cuda_graph=True) | {"benchmark_device": "cpu"},
            None,
            "use_cuda_graph and use_async_batching need a GPU, and benchmark_device is cpu.",
        ),
        (
            options("continuous", attention="paged_flash") | {"benchmark_device": "cpu"},
            None,
            "attention paged_flash needs a GPU, and benchmark_device is cpu.",
        ),
        (
            options("continuous", attention="flash_attention_2") | {"benchmark_dtype": "float32"},
            None,
            "attention flash_attention_2 needs benchmark_dtype float16 or bfloat16.",
        ),
        (
            {"benchmark_engine_options": {"attention": "sdpa"}},
            None,
            "attention sdpa has no steps that can be CUDA graphs: set require_cuda_graph to false too.",
        ),
        (
            options("continuous", use_cuda_graph=False),
            None,
            "require_cuda_graph is true and use_cuda_graph is false: set both to false",
        ),
        (
            options("continuous", num_blocks=2, page_size=16),
            None,
            "2 pages (num_blocks) of 16 tokens (page_size) do not",
        ),
        (
            asked("sequential", "mlperf-server"),
            None,
            "The engine sequential answers one query before it takes the next",
        ),
        (asked("sequential", "mlperf-interactive"), None, "a schedule issues them when they are due"),
        (
            asked("sequential", "mlperf-server", benchmark_accuracy="only", benchmark_audit="TEST06"),
            None,
            "a schedule issues them when they are due",
        ),
        # Replicas
        (
            asked("sequential", benchmark_replicas=2),
            None,
            "benchmark_replicas is 2 and the engine sequential runs once",
        ),
        (asked("simulated", benchmark_replicas=4), None, "benchmark_replicas is 4 and the engine simulated runs once"),
        (
            asked("vllm", benchmark_replicas=2, **CPU_VLLM),
            None,
            "benchmark_replicas is 2 and vLLM serves one copy on the",
        ),
        (
            options("vllm", tensor_parallel_size=2) | CPU_VLLM,
            None,
            "tensor_parallel_size and pipeline_parallel_size spread a model over GPUs, but benchmark_device is cpu.",
        ),
        # Lengths
        (
            options("vllm", max_model_len=32),
            None,
            "max_model_len is 32, but the profile's longest prompt and its answer",
        ),
        (
            asked("vllm"),
            SYNTHETIC,
            "max_model_len is 8192, but the profile's longest prompt and its answer take at least 9064",
        ),
        # Servers
        (asked("endpoint"), None, "The engine is endpoint, but no server is set: set benchmark_endpoint_urls"),
        (URL, None, "benchmark_endpoint_urls is set, but the engine continuous uses no server"),
        ({"benchmark_endpoint_start": "x"}, None, "benchmark_endpoint_start is set, but the engine continuous uses no"),
        (asked("continuous", **URL, benchmark_endpoint_start="x"), None, "benchmark_endpoint_start are set, but the"),
        (
            asked("endpoint", **URL, benchmark_endpoint_api="chat"),
            SYNTHETIC,
            "the prompts of the dataset synthetic are token ids without a text",
        ),
        # Scenarios
        (
            {},
            {**CLOSED, "scenario_options": {"rate": 4}},
            "scenario_options.rate is not an option of the scenario closed_loop. Known: concurrency",
        ),
        (
            {},
            {**CLOSED, "scenario_options": {"concurrency": 8}},
            "sequential answers one query before it takes the next, but 8 should be in flight",
        ),
        (
            {"benchmark_engine": "continuous"},
            {**CLOSED, "scenario_options": {"max_duration_ms": 9}},
            "samples is 5, but scenario_options set when to stop",
        ),
        # Sweeps
        ({}, {**CLOSED, "sweep": {"concurrency": [1, 4]}}, "but 4 should be in flight"),
        (asked("continuous"), {**CLOSED, "sweep": {"concurrency": [4, 1]}}, "above the one before it"),
        (asked("continuous"), {**CLOSED, "sweep": {"rate": [0.5], "concurrency": [1]}}, "either concurrency or rate"),
        (asked("continuous"), {**CLOSED, "sweep": {"rate": [0.5]}}, "rate needs LoadGen's scenario Server"),
        (
            asked("continuous"),
            {
                **{**CLOSED, "scenario": "loadgen", "scenario_options": {"scenario": "Server"}},
                "sweep": {"concurrency": [1, 4]},
            },
            "concurrency needs the scenario closed_loop",
        ),
        (
            asked("continuous", benchmark_repeats=3),
            {**CLOSED, "sweep": {"concurrency": [1, 4]}},
            "benchmark_repeats is 3, and the profile own measures under one load after the other",
        ),
        (
            asked("continuous"),
            {**CLOSED, "scenario": "loadgen", "scenario_options": {"scenario": "MultiStream"}},
            "own.yaml: scenario_options.scenario is 'MultiStream': it must be Server, Offline or SingleStream",
        ),
        (
            asked("continuous"),
            {**CLOSED, "scenario": "loadgen", "scenario_options": {}},
            "own.yaml: scenario_options.scenario is missing.",
        ),
        ({"benchmark_target_qps": "auto"}, None, "profile quick has no rate to search for"),
        ({}, {**CLOSED, "scenario": "schedule"}, "a schedule issues them when they are due"),
        (
            asked("continuous"),
            {**CLOSED, "scenario": "schedule", "scenario_options": {"arrivals": "poisson", "burstiness": 2}},
            "burstiness belongs to arrivals: gamma, but arrivals is poisson",
        ),
        (asked("continuous"), REPLAY, "The dataset trace needs benchmark_dataset_path"),
        (asked("continuous"), {**REPLAY, "dataset": "curated"}, "the dataset curated has no times of its own"),
        (asked("continuous"), {**TALKS, "scenario": "closed_loop"}, "are put together by the scenario conversations"),
        (asked("continuous"), {**TALKS, **SYNTHETIC, "scenario": "conversations"}, "which takes no other"),
        (
            asked("continuous"),
            {**TALKS, "generation": {"max_new_tokens": 8}},
            "dataset_options.output_tokens goes up to 9, and generation.max_new_tokens is 8: raise it.",
        ),
        (
            asked("endpoint", **URL, benchmark_endpoint_api="chat"),
            TALKS,
            "the prompts of the dataset conversations are token ids without a text",
        ),
        (asked("continuous", "mlperf-singlestream", benchmark_target_qps="auto"), None, "has no rate to search for"),
        # Without a model or a GPU
        ({}, {**CLOSED, "without_model_or_gpu": True}, "is for the engine simulated, and sequential loads a model"),
        (
            {},
            {**SYNTHETIC, "engine": "simulated", "without_model_or_gpu": True},
            "the dataset synthetic is made of a model's tokens: use curated",
        ),
        # Accuracy
        (
            {"benchmark_accuracy": "only"},
            CLOSED,
            "there is nothing to judge: the dataset curated has no references and the profile no greedy_prompts",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    settings: dict[str, Any], profile: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    (problem,) = problems(settings, profile, tmp_path)
    assert said in problem
    assert problem.endswith(".")


@pytest.mark.parametrize(
    "profile",
    ["quick", "quick-generate", "mlperf-server", "mlperf-interactive", "mlperf-offline", "mlperf-singlestream"],
)
@pytest.mark.parametrize("engine", ["sequential", "continuous", "vllm", "endpoint"])
@pytest.mark.parametrize("accuracy", ["profile", "off", "with-performance", "only"])
def test_every_engine_takes_every_profile_it_can(engine: str, profile: str, accuracy: str, tmp_path: Path) -> None:
    settings = asked(engine, profile, benchmark_accuracy=accuracy, **(URL if engine == "endpoint" else {}))
    scheduled = profile in ("mlperf-server", "mlperf-interactive") and accuracy != "only"
    assert bool(problems(settings, None, tmp_path)) == (engine == "sequential" and scheduled)


@pytest.mark.parametrize(
    ("settings", "profile"),
    [
        # What has no effect is let be: one inventory serves several profiles.
        (asked("simulated", "self-test", **URL), None),
        ({"benchmark_endpoint_model": "x", "benchmark_endpoint_api": "chat"}, None),
        ({"benchmark_dataset_path": "/x.json"}, None),
        ({"benchmark_accuracy": "with-performance"}, CLOSED),
        # What works.
        (
            options("continuous", page_size=16, attention="sdpa")
            | {"benchmark_device": "cpu", "benchmark_replicas": 2},
            None,
        ),
        (options("continuous", attention="sdpa", require_cuda_graph=False), None),
        (asked("continuous"), {**CLOSED, "generation": {"temperature": 1.0, "top_k": 5, "top_p": 0.9}}),
        (asked("continuous"), SYNTHETIC),
        (options("vllm", max_model_len=10_000), SYNTHETIC),
        (asked("endpoint", **URL, benchmark_replicas=8), SYNTHETIC),
        (asked("endpoint", benchmark_endpoint_urls=["http://a", "http://b"], benchmark_endpoint_start="both"), None),
        (asked("continuous", "mlperf-server", benchmark_target_qps="auto"), None),
        ({"benchmark_solo_first": True, "benchmark_dtype": "float16", "benchmark_device": "cpu"}, None),
        (asked("continuous"), {**CLOSED, "scenario": "schedule"}),
        (asked("continuous", benchmark_dataset_path="/x"), REPLAY),
        (asked("continuous"), TALKS),
    ],
)
def test_what_can_work_is_let_be(settings: dict[str, Any], profile: dict[str, Any] | None, tmp_path: Path) -> None:
    assert problems(settings, profile, tmp_path) == []


def test_the_tables_know_all_that_there_is() -> None:
    assert set(DATASET_OPTIONS) == set(plugins("datasets"))
    assert {*ENGINE_OPTIONS, *ENGINES} == set(plugins("engines"))
    assert set(SCENARIO_OPTIONS) == set(plugins("scenarios"))
