"""What answers otherwise than the model itself would is found before the run."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmark.errors import SetupError
from benchmark.node.continuous import fused
from benchmark.node.model.load import LoadedModel
from benchmark.profiles import Generation
from tests.unit.node.continuous.asked import Make
from tests.unit.node.continuous.plain_kernels import PlainKernels


@pytest.mark.parametrize("broken_from", [2, 4])
def test_a_graph_that_computes_no_more_is_found_before_the_run(
    make: Make, broken_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = ModelRunner._forward_process_and_sample, []

    def stale(runner: Any, model: Any, inputs: Any, *rest: Any) -> None:
        calls.append(1)
        if len(calls) < broken_from:
            compute(runner, model, inputs, *rest)  # afterwards the answers stay what they were

    monkeypatch.setattr(ModelRunner, "_forward_process_and_sample", stale)
    with pytest.raises(SetupError, match="does not answer as the model itself would"):
        make()
    assert len(calls) > broken_from


def test_a_replaced_part_that_is_wrong_is_found_before_the_run(
    make: Make, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, but for the kernels: they are in torch's own operations here, and some multiply by other rows."""

    class Wrong(PlainKernels):
        def multiply(self, states: Any, weight: Any, bias: Any) -> Any:
            return super().multiply(states, weight.flip(0), bias)

    monkeypatch.setattr(fused, "wanted", lambda *about: True)
    for kernels, right in ((PlainKernels(), True), (Wrong(), False)):
        monkeypatch.setattr(fused, "of", lambda model, kernels=kernels: fused.Fused(model, kernels))
        if right:
            engine, info = make()
            assert info.details["fused"] == ["Linear", "LlamaMLP", "LlamaRMSNorm", "apply_rotary_pos_emb"]
            check = info.details["cross_check"]
            assert isinstance(check, dict)
            assert check["same"] == check["tokens"]
            engine.close()
        else:
            with pytest.raises(SetupError, match="does not answer as the model itself would"):
                make()
    assert "forward" not in vars(loaded.model.model.norm)


def test_with_sampling_too_answers_are_held_against_the_model(make: Make) -> None:
    _, info = make(Generation(max_new_tokens=8, temperature=1.0))
    check = info.details["cross_check"]
    assert isinstance(check, dict)
    assert check["same"] == check["tokens"]
