"""What takes the place of a model's parts computes what they computed, and can be taken back."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers.models.olmo2 import modeling_olmo2
from transformers.models.phi3 import modeling_phi3

from benchmark.errors import SetupError
from benchmark.node.continuous import fused, layer_kernels
from benchmark.node.continuous.fused import Fused
from benchmark.node.model.architecture import model_class
from tests import architectures
from tests.unit.node.continuous.plain_kernels import PlainKernels

TOKENS = (7, 1, 12)


ALL = {"norm", "rotary", "multiply", "multiply_gated", "gated"}


@pytest.mark.parametrize(
    ("family", "replaced", "used"),
    [
        ("llama", {"Linear", "LlamaMLP", "LlamaRMSNorm", "apply_rotary_pos_emb"}, ALL),
        ("gemma2", {"Linear", "Gemma2MLP", "Gemma2RMSNorm", "apply_rotary_pos_emb"}, ALL),
        ("qwen3", {"Linear", "Qwen3MLP", "Qwen3RMSNorm", "apply_rotary_pos_emb"}, ALL),
        ("olmo2", {"Linear", "Olmo2MLP", "Olmo2RMSNorm", "apply_rotary_pos_emb"}, ALL),
        ("phi3", {"Linear", "Phi3RMSNorm", "apply_rotary_pos_emb"}, {"norm", "rotary", "multiply"}),
        # The part of each head that is turned is too small for the kernel; the whole of it would not be.
        ("phi", {"Linear", "apply_rotary_pos_emb"}, {"multiply"}),
        ("glm4_moe", {"Linear", "Glm4MoeMLP", "Glm4MoeRMSNorm", "apply_rotary_pos_emb"}, ALL - {"rotary"}),
        # It has angles for half a head, which the kernel does not know.
        ("gpt_oss", {"Linear", "GptOssRMSNorm"}, {"norm", "multiply"}),
        # Its function of that name takes other arguments.
        ("gptj", {"Linear"}, {"multiply"}),
    ],
)
def test_a_family_answers_the_same(family: str, replaced: set[str], used: set[str]) -> None:
    model, kernels = architectures.model(family), PlainKernels()
    inputs = [torch.arange(2, 2 + tokens)[None] for tokens in TOKENS]
    with torch.inference_mode():
        plain = [model(one).logits for one in inputs]
        parts = Fused(model, kernels)
        kernels.called.clear()
        parts.on()
        answers = [model(one).logits for one in inputs]
        parts.off()
        again = [model(one).logits for one in inputs]
    torch.testing.assert_close(answers, plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(again, plain, rtol=1e-3, atol=1e-4)
    assert set(parts.names) == replaced
    assert kernels.called == used
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_computes_something_else_stays_as_it_is() -> None:
    class Wrong(PlainKernels):
        def norm(self, states: Any, weight: Any, epsilon: float, offset: float, early: bool) -> Any:
            return super().norm(states, weight.flip(-1), epsilon, offset, early)

        def gated(self, both: Any, activation: int) -> Any:
            gate, up = both.chunk(2, dim=-1)
            return gate * up

        def rotary(self, *given: Any, **more: Any) -> Any:
            raise ValueError("not for such a shape")

    model = architectures.model("llama")
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    inputs = torch.arange(2, 9)[None]
    with torch.inference_mode():
        plain = model(inputs).logits
        parts = Fused(model, Wrong())
        parts.on()
        torch.testing.assert_close(model(inputs).logits, plain, rtol=1e-3, atol=1e-4)
        parts.off()
    assert "apply_rotary_pos_emb" not in parts.names
    assert "LlamaRMSNorm" in parts.names  # by torch's own kernel


def test_a_part_of_a_head_is_turned_by_the_models_own_code() -> None:
    # Phi-4-mini's: 96 of 128 values. The kernel is for all.
    parts = Fused(architectures.model("phi3"), PlainKernels())
    q, k, cos, sin = (torch.rand(1, heads, 7, size) for heads, size in ((4, 32), (2, 32), (1, 16), (1, 16)))
    given = q, k, cos[0], sin[0]
    expected = modeling_phi3.apply_rotary_pos_emb(*given)
    parts.on()
    found = modeling_phi3.apply_rotary_pos_emb(*given)
    parts.off()
    torch.testing.assert_close(found, expected)


def test_angles_of_another_precision_are_left_to_the_model() -> None:
    # OLMo's are float32 whatever its weights are; the kernel would take them for half precision.
    kernels = PlainKernels()
    parts = Fused(architectures.model("olmo2"), kernels)
    kernels.called.clear()
    q, k, cos, sin = (torch.rand(1, heads, 7, 32) for heads in (4, 2, 1, 1))
    parts.on()
    modeling_olmo2.apply_rotary_pos_emb(q.half(), k.half(), cos[0], sin[0])
    assert not kernels.called
    modeling_olmo2.apply_rotary_pos_emb(q, k, cos[0], sin[0])
    parts.off()
    assert kernels.called == {"rotary"}


@pytest.mark.parametrize(("activation", "fits"), [("silu", True), ("gelu_pytorch_tanh", True), ("gelu", False)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_activation_that_is_nearly_the_kernels_is_left(activation: str, fits: bool, dtype: torch.dtype) -> None:
    own = architectures.config("llama")
    own.hidden_act = activation
    kernels = PlainKernels(dtype)
    parts = Fused(model_class(own).from_config(own, dtype=dtype), kernels)
    kernels.called.clear()
    parts.on()
    mlp = next(module for module, _ in parts._modules if type(module).__name__ == "LlamaMLP")
    with torch.inference_mode():
        mlp(torch.zeros(1, 1, 64, dtype=dtype))
    parts.off()
    assert ("multiply_gated" in kernels.called) == fits


def test_parts_of_another_precision_are_the_models_own() -> None:
    # The router of HunYuan's experts is float32 in a model of bfloat16; gpt-oss has its norms so in one of float16.
    own = architectures.config("hunyuan_v1_moe")
    model = model_class(own).from_config(own, dtype=torch.bfloat16).eval()
    routers = [module for name, module in model.named_modules() if name.endswith(".wg")]
    assert routers
    for router in routers:
        router.float()
    norm = model.model.norm.float()
    with torch.inference_mode():
        states, one = torch.rand(1, 7, 64).bfloat16(), torch.rand(1, 1, 64)
        plain = norm(states), norm(states.float()), routers[0](one)
        parts = Fused(model, PlainKernels(torch.bfloat16))
        parts.on()
        found = norm(states), norm(states.float()), routers[0](one)
        parts.off()
    torch.testing.assert_close(found, plain, rtol=0.01, atol=0.01)


def test_a_norm_that_is_given_more_than_states_is_the_models_own() -> None:
    class GatedRMSNorm(modeling_olmo2.Olmo2RMSNorm):  # type: ignore[misc] # transformers has no types here
        def forward(self, states: Any, gate: Any = None) -> Any:
            return super().forward(states if gate is None else states * gate)

    model = torch.nn.Sequential(GatedRMSNorm(16))
    model.dtype = torch.float32
    states, kernels = torch.rand(1, 3, 16), PlainKernels()
    plain = model[0](states, gate=states), model[0](states.double())
    model.config = Mock(get_text_config=lambda: Mock(head_dim=16))
    model.device = torch.device("cpu")
    parts = Fused(model, kernels)
    kernels.called.clear()
    parts.on()
    torch.testing.assert_close((model[0](states, gate=states), model[0](states.double())), plain)
    assert not kernels.called
    model[0](states)
    assert kernels.called == {"norm"}


def test_without_kernels_torchs_norm_is_left() -> None:
    model = architectures.model("llama")
    inputs = torch.arange(2, 9)[None]
    with torch.inference_mode():
        plain = model(inputs).logits
        parts = Fused(model, None)
        parts.on()
        found = model(inputs).logits
        parts.off()
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-4)
    assert set(parts.names) == {"Linear", "LlamaMLP", "LlamaRMSNorm"}
    assert parts.kernels.startswith("torch's (")
    assert not any("Norm" in name for name in Fused(architectures.model("gemma2"), None).names)


def test_fuse_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fused.wanted(None, "cpu", "float32")
    assert not fused.wanted(False, "cuda", "bfloat16")
    assert fused.wanted(None, "cuda", "bfloat16")
    with pytest.raises(SetupError, match="fuse: true is not available: it needs a GPU"):
        fused.wanted(True, "cpu", "float32")

    def fail(dtype: str) -> Any:
        raise RuntimeError("NVRTC: kernels.cu(1): error: no such GPU\nmore")

    monkeypatch.setattr(layer_kernels, "load", fail)
    layer_kernels.missing.cache_clear()
    with pytest.raises(SetupError, match=r"not available: RuntimeError: NVRTC: kernels.cu\(1\): error: no such GPU\.$"):
        fused.wanted(True, "cuda", "bfloat16")
    layer_kernels.missing.cache_clear()


def test_full_memory_is_no_reason_to_measure_with_other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried it."), RuntimeError("CUDA error: out of memory")
    for error in full:
        kernels = PlainKernels()
        monkeypatch.setattr(kernels, "norm", Mock(side_effect=error))
        with pytest.raises(type(error), match="out of memory"):
            Fused(architectures.model("llama"), kernels)
        monkeypatch.setattr(layer_kernels, "load", Mock(side_effect=error))
        layer_kernels.missing.cache_clear()
        with pytest.raises(SetupError, match=r"The layer kernels cannot be loaded: .*out of memory"):
            layer_kernels.missing("bfloat16")
    layer_kernels.missing.cache_clear()
