"""What our runner of a step does otherwise than transformers', where no GPU is needed to see it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmark.node.continuous.step_runner import StepRunner


@pytest.mark.parametrize(("device", "expected"), [("cuda", ["step", "waited"] * 2), ("cpu", ["step"] * 2)])
def test_a_step_of_the_warm_up_ends_before_the_next_is_prepared(
    device: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def step(*_: object) -> float:
        done.append("step")
        return 0.5

    monkeypatch.setattr(ModelRunner, "run_one_warmup", step)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("waited"))
    runner = StepRunner.__new__(StepRunner)
    runner.cache = SimpleNamespace(device=torch.device(device))
    assert [runner.run_one_warmup(None, tokens, 0) for tokens in (8191, 8192)] == [0.5, 0.5]
    assert done == expected
