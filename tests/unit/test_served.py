"""Which model a result's numbers are of."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.served import NOT_REPORTED, describe_model, in_label, model_facts
from benchmark.settings import Settings

SETTINGS = Settings(benchmark_device="cpu", benchmark_dtype="float32")
MODEL = SETTINGS.benchmark_model


@pytest.mark.parametrize("engine", ["sequential", "continuous", "vllm", "simulated"])
def test_what_the_run_loads_is_what_the_settings_name(engine: str) -> None:
    details = {"model": "x", "reported": {"dtype": "bfloat16", "revision": "y"}}
    facts = model_facts(SETTINGS, engine, details)
    assert (facts.name, facts.revision, facts.dtype) == (MODEL, SETTINGS.benchmark_model_revision, "float32")
    assert describe_model(SETTINGS, engine) == f"{MODEL}@{SETTINGS.benchmark_model_revision[:12]}, float32, cpu"
    directory = SETTINGS.model_copy(update={"benchmark_model": "/models/x"})
    assert describe_model(directory, engine) == "/models/x, float32, cpu"


@pytest.mark.parametrize("engine", ["sequential", "vllm"])
def test_quantized_weights_are_said_beside_the_precision(engine: str) -> None:
    assert model_facts(SETTINGS, engine, {"quantization": "gptq"}).served == "weights quantized by gptq"
    assert describe_model(SETTINGS, engine, {"quantization": "gptq"}).endswith(
        ", float32, weights quantized by gptq, cpu"
    )


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (None, "model not reported by the server, revision and precision not reported by the server, cpu"),
        ({"model": MODEL}, f"{MODEL}, revision and precision not reported by the server, cpu"),
        ({"model": "m", "reported": {"dtype": "bfloat16"}}, "m, bfloat16, revision not reported by the server, cpu"),
        (
            {"model": "m", "answered_by": "b", "reported": {"revision": "0123456789abcdef", "quantization": "fp8"}},
            "m@0123456789ab, answers as b, quantization fp8, precision not reported by the server, cpu",
        ),
        (
            {"model": "m", "models": ["n"], "not_listed_by": ["http://one"]},
            "m, not in the server's list, revision and precision not reported by the server, cpu",
        ),
        (
            {"model": "m", "models": [], "not_listed_by": ["http://one"]},
            "m, revision and precision not reported by the server, cpu",
        ),
        (
            {"model": "m", "reported": {"root": "/home/a/models/Llama-FP8", "dtype": "float16"}},
            "m, float16, root Llama-FP8, revision not reported by the server, cpu",
        ),
        (
            {"model": MODEL, "reported": {"root": f"/c/models--{MODEL.replace('/', '--')}/snapshots/{'ab' * 20}"}},
            f"{MODEL}, revision and precision not reported by the server, cpu",
        ),
        ({"model": "m", "reported": "odd"}, "m, revision and precision not reported by the server, cpu"),
    ],
)
def test_of_a_server_only_what_it_reports_is_shown(details: dict[str, Any] | None, words: str) -> None:
    assert describe_model(SETTINGS, "endpoint", details) == words


def test_a_label_says_of_what_nothing_is_known() -> None:
    assert in_label("dtype", NOT_REPORTED) == "precision not reported by the server"
    assert in_label("dtype", "float16") == "float16"
