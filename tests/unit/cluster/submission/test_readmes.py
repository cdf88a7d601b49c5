"""What a submission says of the weights: as the settings choose them, or as a server reports them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.submission.parts import Part, gather_parts
from benchmark.cluster.submission.readmes import is_reference_model, measurements, model, quantization
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION

HUB = f"/home/somebody/.cache/hub/models--{DEFAULT_MODEL.replace('/', '--')}/snapshots/{DEFAULT_REVISION}"


def answered(offline: Path, engine: str, options: dict[str, Any], details: dict[str, Any], **settings: Any) -> Part:
    """Return a part whose engine had these options and details."""
    part = gather_parts([offline], ["jw2"]).parts("jw2")[0]
    resolved, reported = part.result.resolved, part.result.engine
    assert reported is not None
    resolved = resolved.model_copy(
        update={
            "profile": resolved.profile.model_copy(update={"engine": engine, "engine_options": options}),
            "settings": resolved.settings.model_copy(
                update={"benchmark_model": DEFAULT_MODEL, "benchmark_model_revision": DEFAULT_REVISION, **settings}
            ),
        }
    )
    reported = reported.model_copy(update={"name": engine, "details": details})
    return replace(part, result=part.result.model_copy(update={"resolved": resolved, "engine": reported}))


def test_the_settings_choose_the_weights_that_the_run_loads(offline: Path) -> None:
    part = answered(offline, "continuous", {}, {})
    assert is_reference_model(part)
    assert measurements(part)["starting_weights_filename"] == f"{DEFAULT_MODEL} at {DEFAULT_REVISION}"
    assert measurements(part)["weight_data_types"] == "fp16"
    mine = answered(offline, "continuous", {}, {}, benchmark_model="/home/somebody/mine")
    assert not is_reference_model(mine)
    assert model(mine).startswith("mine (SHA-256 of the weights ")


@pytest.mark.parametrize(
    ("words", "quantized"),
    [
        ([], ""),
        (["--kv-cache-dtype=fp8"], ""),
        (["--quantization=fp8"], "fp8"),
        (["--enforce-eager", "--quantization", "awq", "--seed=1"], "awq"),
        (["-q", "gptq"], "gptq"),
    ],
)
def test_vllms_words_say_that_weights_are_quantized(offline: Path, words: list[str], quantized: str) -> None:
    part = answered(offline, "vllm", {"arguments": words}, {})
    assert quantization(part) == quantized
    assert measurements(part)["weight_data_types"] == (quantized or "fp16")


@pytest.mark.parametrize(
    ("details", "reference", "weights", "types"),
    [
        ({"model": "llama"}, False, "llama (revision not reported by the server)", "not reported by the server"),
        (
            {"model": "/home/somebody/llama", "reported": {"dtype": "bfloat16", "revision": "abc"}},
            False,
            "llama at abc",
            "bf16",
        ),
        (
            {"model": HUB, "reported": {"dtype": "float16", "revision": DEFAULT_REVISION, "quantization": "fp8"}},
            True,
            f"{DEFAULT_MODEL} at {DEFAULT_REVISION}",
            "fp8",
        ),
    ],
)
def test_of_a_server_only_what_it_reports_is_said(
    offline: Path, details: dict[str, Any], reference: bool, weights: str, types: str
) -> None:
    part = answered(offline, "endpoint", {}, details)
    assert is_reference_model(part) is reference
    assert model(part) == weights
    assert measurements(part)["weight_data_types"] == types
    assert "somebody" not in str(measurements(part))
