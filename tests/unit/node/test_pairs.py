"""Every engine with every profile that comes along, sizes apart: it works to the end, or is refused before anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import BenchmarkError, InputError
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.run import RunRequest, run
from benchmark.profiles import load_profile, plugins, profile_names
from benchmark.provisioned import ENGINES
from benchmark.resolve import resolve
from benchmark.settings import ResolvedSettings
from tests.openai_server import OpenAIServer

PROFILES = [name for name in profile_names() if load_profile(name).loads_model]
# What each pair that cannot be is refused with, on the controller.
SCHEDULED = "The engine sequential answers one query before it takes the next"
REFUSED = {("sequential", name): SCHEDULED for name in ("mlperf-server", "mlperf-interactive", "sweep")}
REFUSED |= {(engine, name): "benchmark_device is cpu, and" for engine in ENGINES for name in PROFILES}
PAIRS = [(engine, profile) for engine in plugins("engines") for profile in PROFILES]


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(("tiny",)) as running:
        yield running


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, server: OpenAIServer) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("pairs")
    make_tiny_model(directory / "tiny")
    entries = [
        {"input": f"Say {number}.", "tok_input": [*range(5, 9 + number)], "output": f"It is {number}."}
        for number in range(6)
    ]
    (directory / "cnn_eval.json").write_text(json.dumps(entries))
    return {
        **{"benchmark_model": str(directory / "tiny"), "benchmark_device": "cpu", "benchmark_dtype": "float32"},
        **{"benchmark_dataset_path": str(directory / "cnn_eval.json"), "benchmark_telemetry": False},
        **{"benchmark_target_qps": 40, "benchmark_accuracy": "with-performance", "benchmark_probes": "off"},
    }


def asked(given: dict[str, Any], engine: str, profile: str, url: str) -> ResolvedSettings:
    """Resolve as the controller does; then make it short."""
    served = {"benchmark_endpoint_urls": [url]} if engine == "endpoint" else {}
    base = resolve({**given, **served, "benchmark_engine": engine, "benchmark_profile": profile})
    whole = base.profile.model_dump()
    least = 4 if whole["generation"]["min_new_tokens"] > 1 else whole["generation"]["min_new_tokens"]
    whole |= {"warmup": 1, "min_prompts": 1, "samples": whole["samples"] and 5}
    whole["generation"] |= {"max_new_tokens": 4, "min_new_tokens": least}
    if whole.get("sweep"):
        whole["sweep"]["concurrency"] = [1, 2]
        whole["scenario_options"] |= {"min_query_count": 4}
        whole["dataset_options"] |= {"prompts": 6, "input_tokens": 16}
    if whole["scenario"] == "loadgen":
        whole["scenario_options"] |= {"min_duration_ms": 50, "min_query_count": 6, "max_query_count": 12}
    return ResolvedSettings.model_validate({"settings": base.settings, "profile": whole})


@pytest.mark.parametrize(("engine", "profile"), [pair for pair in PAIRS if pair not in REFUSED])
def test_a_pair_works_to_the_end(
    engine: str, profile: str, given: dict[str, Any], server: OpenAIServer, tmp_path: Path
) -> None:
    result = run(RunRequest("r1", "jw2", asked(given, engine, profile, server.url), tmp_path))
    assert result.status == "complete"
    assert result.engine is not None
    assert result.engine.name == engine
    assert result.metrics is not None
    assert not result.metrics.queries.failed
    assert result.accuracy is not None
    if load_profile(profile).scenario == "loadgen":
        assert result.accuracy.rouge is not None
        assert result.accuracy.rouge.answers == 6
    else:
        # The double answers as it likes, and self-test has no prompts for it.
        assert len(result.accuracy.greedy) == load_profile(profile).greedy_prompts


@pytest.mark.parametrize(("engine", "profile"), REFUSED)
def test_the_others_are_refused_on_the_controller(engine: str, profile: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=REFUSED[engine, profile]):
        asked(given, engine, profile, "")


@pytest.mark.parametrize(
    ("engine", "change", "said"),
    [
        ("endpoint", {"rejects": {"return_token_ids"}}, "reports no token ids, but answers are compared by their ids"),
        ("endpoint", {"rejects": {"prompt"}}, "cannot be run on this server: /v1/completions cannot be used"),
        ("continuous", {"vocabulary": 512}, "token ids up to 512, but the model has 512"),
        ("sequential", {"vocabulary": 512}, "token ids up to 512, but the model has 512"),
        ("continuous", {"length": 2046}, "take 2050 tokens, but the model's limit is 2048"),
        ("sequential", {"length": 2046}, "take 2050 tokens, but the model's limit is 2048"),
        ("simulated", {"model": "none"}, "holds no model"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_measuring(
    engine: str, change: dict[str, Any], said: str, given: dict[str, Any], tmp_path: Path
) -> None:
    """Each of these failed its queries one by one, or after an hour of measuring."""
    prompts = {
        "input": "Say it.",
        "tok_input": [change.get("vocabulary", 5)] * change.get("length", 4),
        "output": "It.",
    }
    (tmp_path / "own.json").write_text(json.dumps([prompts]))
    (tmp_path / "run").mkdir()
    own = {**given, "benchmark_dataset_path": str(tmp_path / "own.json")}
    own["benchmark_model"] = str(tmp_path) if "model" in change else own["benchmark_model"]
    with OpenAIServer(("tiny",)) as server:
        server.rejects = change.get("rejects", set())
        with pytest.raises(BenchmarkError, match=said):
            run(RunRequest("r1", "jw2", asked(own, engine, "mlperf-offline", server.url), tmp_path / "run"))
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_greedy_prompts_for_a_server_without_a_temperature(given: dict[str, Any], tmp_path: Path) -> None:
    with OpenAIServer(("tiny",)) as server:
        server.rejects = {"temperature"}
        quick = asked(given, "endpoint", "quick", server.url)
        sampled = quick.profile.model_copy(
            update={"generation": quick.profile.generation.model_copy(update={"temperature": 1.0})}
        )
        with pytest.raises(
            InputError, match="accepts no temperature, so it cannot be asked to answer without sampling"
        ):
            run(RunRequest("r1", "jw2", quick.model_copy(update={"profile": sampled}), tmp_path))
    assert not (tmp_path / "samples.jsonl").exists()
