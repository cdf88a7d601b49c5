"""The compiled parts of a model compute what they computed, and can be taken back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark.node.continuous.fused import Fused
from benchmarks.shapes import make_on_device


def test_what_is_compiled_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile

    def without_generating_code(function: Any, *, dynamic: bool, **how: Any) -> Any:
        return real(function, dynamic=dynamic, backend="eager")  # generating it takes 40 s here

    monkeypatch.setattr(torch, "compile", without_generating_code)
    model = make_on_device("tiny", "float32", "cpu").model
    inputs = [torch.arange(2, 2 + tokens)[None] for tokens in (7, 1, 12)]
    with torch.inference_mode():
        plain = [model(one).logits for one in inputs]
        parts = Fused(model)
        parts.on()
        for layer in model.model.layers:
            for together in (layer.self_attn, ("q_proj", "k_proj", "v_proj")), (layer.mlp, ("gate_proj", "up_proj")):
                module, names = together
                places = {getattr(module, name).weight.untyped_storage().data_ptr() for name in names}
                assert len(places) == 1  # one matrix, and nothing twice
        compiled = [model(one).logits for one in inputs]
        parts.off()
        again = model(inputs[0]).logits
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(again, plain[0])
    assert not any("forward" in vars(module) for module in model.modules())
