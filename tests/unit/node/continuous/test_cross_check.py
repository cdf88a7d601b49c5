"""What answers otherwise than the model itself would is found before the run."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmark.errors import SetupError
from benchmark.node.continuous import cross_check, fused
from benchmark.node.engines import continuous
from benchmark.node.model.load import LoadedModel
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.unit.node.continuous.asked import GREEDY, Make
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
    with pytest.raises(SetupError, match="answers differ from the model's own"):
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
            with pytest.raises(SetupError, match="answers differ from the model's own"):
                make()
    assert "forward" not in vars(loaded.model.model.norm)


def test_an_engine_whose_check_breaks_is_closed(
    settings: Settings, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(cross_check, "shortfalls", full)
    engine = continuous.Engine(settings, GREEDY, {})
    with pytest.raises(torch.OutOfMemoryError):
        engine.start(loaded)
    assert not engine._router._listening.is_alive()
    assert not hasattr(engine, "_manager")


def test_of_all_logits_those_of_the_answer_count() -> None:
    def model(inputs: torch.Tensor, use_cache: bool, logits_to_keep: int) -> SimpleNamespace:
        return SimpleNamespace(logits=one_hot(inputs + 1, 16))  # of each token the next number, whatever is to be kept

    model.device = "cpu"  # type: ignore[attr-defined]
    assert cross_check.shortfalls(model, [cross_check.Probe((5, 6, 7), 2)], [(8, 9)]) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("worst", "dtype", "experts", "passes"),
    [
        (0.9, "bfloat16", False, True),
        (1.1, "float16", False, False),
        (1.6, "float16", True, True),
        (2.1, "bfloat16", True, False),
        (0.02, "float32", True, False),
    ],
)
def test_half_precision_may_choose_other_experts(worst: float, dtype: str, experts: bool, passes: bool) -> None:
    with nullcontext() if passes else pytest.raises(SetupError, match="answers differ from the model's own"):
        assert cross_check.judge([0.0, worst], dtype, experts) == {"tokens": 2, "same": 1, "worst": worst}


def test_with_sampling_too_answers_are_held_against_the_model(make: Make) -> None:
    _, info = make(Generation(max_new_tokens=8, temperature=1.0))
    check = info.details["cross_check"]
    assert isinstance(check, dict)
    assert check["same"] == check["tokens"]
