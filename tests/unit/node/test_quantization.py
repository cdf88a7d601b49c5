"""Weights in eight bits: loaded so, counted so, answered with, and refused where they cannot be had."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
import torch
import transformers.modeling_utils  # noqa: F401 # before anything loads without quantising, and torchao is kept out

from benchmark.errors import InputError, SetupError
from benchmark.node import quantization
from benchmark.node.engines import continuous
from benchmark.node.fused import Fused
from benchmark.node.interfaces import Prompt, Query
from benchmark.node.model import load_model, weight_bytes
from benchmark.node.model_files import count_parameters
from benchmark.node.tiny_model import make_tiny_model
from benchmark.profiles import Generation
from benchmark.settings import Settings, resolve
from benchmarks.shapes import make_on_device
from tests.unit.node.heard import Heard


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(directory)
    return directory


def settings(directory: Path, quantised: str = "int8") -> Settings:
    given = {"benchmark_dtype": "bfloat16", "benchmark_quantization": quantised, "benchmark_device": "cpu"}
    return Settings.model_validate({"benchmark_model": str(directory), **given})


def test_the_linear_layers_are_quantised_while_they_are_loaded(tiny: Path) -> None:
    loaded = load_model(settings(tiny), readers=2)
    plain = load_model(settings(tiny, "none"))
    assert loaded.details["quantization"] == "int8"
    quantised = {name for name, one in loaded.model.named_parameters() if quantization.is_quantised(one)}
    linear = {name for name, module in loaded.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert quantised == {f"{name}.weight" for name in linear - {"lm_head"}}
    for name, one in loaded.model.named_parameters():
        other = plain.model.get_parameter(name)
        # Of 255 steps between a row's extremes, half a one.
        step = other.abs().amax(-1, keepdim=True) / 127 if name in quantised else torch.zeros(1)
        exact = one.dequantize() if name in quantised else one
        assert ((exact.float() - other.float()).abs() <= 0.51 * step.float() + 0.01 * other.float().abs()).all(), name
    # What is planned for before loading is what it came to, norms aside.
    stored = sum(quantization.stored_bytes(one) for one in loaded.model.parameters())
    scales = sum(4 * len(loaded.model.get_parameter(name)) for name in quantised)
    planned = weight_bytes(settings(tiny), tiny, count_parameters(tiny))
    assert planned == pytest.approx(stored - scales, rel=0.01)
    assert planned < 0.8 * weight_bytes(settings(tiny, "none"), tiny, count_parameters(tiny))


def test_a_loaded_model_is_quantised_alike(tiny: Path) -> None:
    loaded, later = load_model(settings(tiny)).model, load_model(settings(tiny, "none")).model
    quantization.apply(later, "int8")
    inputs = torch.arange(2, 30)[None]
    with torch.inference_mode():
        assert torch.equal(loaded(inputs).logits, later(inputs).logits)


def test_the_continuous_engine_answers_as_the_quantised_model_does(tiny: Path) -> None:
    given = settings(tiny)
    generation = Generation(max_new_tokens=6, min_new_tokens=6)
    with closing(continuous.Engine(given, generation, {})) as engine:
        details = engine.start(load_model(given)).details
        heard = Heard()
        engine.submit(Query(0, Prompt("p", "Why?"), 0), heard)
        heard.wait(1)
    assert len(heard.tokens[0]) == 6
    check = details["cross_check"]
    assert isinstance(check, dict)
    assert isinstance(check["tokens"], int)
    assert check["tokens"] > 20


def test_what_is_compiled_computes_with_quantised_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    real, compiled = torch.compile, []

    def without_generating_code(function, *, dynamic, **how):  # type: ignore[no-untyped-def]
        compiled.append((function.__qualname__, dynamic))
        return real(function, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", without_generating_code)
    model = make_on_device("tiny", "bfloat16", "cpu", "int8").model
    inputs = [torch.arange(2, 2 + tokens)[None] for tokens in (7, 1)]
    with torch.inference_mode():
        plain = [model(one).logits for one in inputs]
        parts = Fused(model)
        # Quantising the input of a projection is worth compiling for many tokens too.
        assert ("Linear.forward", True) in compiled
        parts.on()
        torch.testing.assert_close([model(one).logits for one in inputs], plain, rtol=0.02, atol=0.02)
        parts.off()


@pytest.mark.parametrize(
    ("name", "device", "dtype", "capability", "said"),
    [
        ("none", "cpu", "float32", None, None),
        ("int8", "cpu", "float32", None, None),
        ("int8", "cuda", "float16", (8, 0), None),
        ("fp8", "cpu", "bfloat16", None, "needs a GPU"),
        ("fp8", "cuda", "float16", (9, 0), "benchmark_dtype: bfloat16"),
        ("fp8", "cuda", "bfloat16", (8, 0), "this one has 8.0; int8 is to be had"),
        ("fp8", "cuda", "bfloat16", (8, 9), None),
        ("fp8", "cuda", "bfloat16", (10, 0), None),
    ],
)
def test_what_a_machine_cannot_do_is_said(
    name: str,
    device: str,
    dtype: str,
    capability: tuple[int, int] | None,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    reason = quantization.missing(name, device, dtype)
    assert (reason is None) if said is None else (said in (reason or ""))


def test_without_torchao_a_node_says_so_before_it_loads(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(SetupError, match="benchmark_quantization: int8 is not to be had: the package torchao is not"):
        load_model(settings(tiny))


def test_torchao_is_not_imported_where_nothing_is_quantised(tiny: Path) -> None:
    code = (
        "import sys; from benchmark.node.model import load_model; from benchmark.settings import Settings; "
        f"load_model(Settings(benchmark_model={str(tiny)!r}, benchmark_device='cpu')); print('torchao' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmark_dtype": "bfloat16"}, None),
        ({}, "fp8 needs bfloat16"),
        ({"benchmark_dtype": "bfloat16", "benchmark_device": "cpu"}, "which needs a GPU"),
        ({"benchmark_dtype": "bfloat16", "benchmark_engine": "simulated"}, "not for the engine simulated"),
    ],
)
def test_what_can_never_be_is_refused_before_any_node_is_touched(given: dict[str, str], said: str | None) -> None:
    asked = {"benchmark_quantization": "fp8", **given}
    if said is None:
        assert resolve(asked).settings.benchmark_quantization == "fp8"
        return
    with pytest.raises(InputError, match=said):
        resolve(asked)
