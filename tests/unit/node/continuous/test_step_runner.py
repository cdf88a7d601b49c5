"""What our runner of a step does otherwise than transformers', where no GPU is needed to see it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmark.errors import SetupError
from benchmark.node.continuous.attention import PAGED_FLASH
from benchmark.node.continuous.step_runner import StepRunner
from benchmark.node.engines import continuous
from benchmark.node.model.tiny import make_tiny_model
from tests.architectures import save
from tests.unit.node.continuous.asked import GREEDY, Make


@pytest.mark.parametrize("answer", [True, False])
def test_of_the_cache_no_list_of_tokens_is_filled(answer: bool) -> None:
    runner = StepRunner.__new__(StepRunner)
    runner.cache, runner.use_cuda_graph_decode = SimpleNamespace(max_batch_tokens=4096), True
    runner.cb_config = SimpleNamespace(max_requests_per_batch=64)
    assert runner.maybe_pad_inputs(33, 100_000, answer) == (64 if answer else 33, 0)
    assert runner.pad_inputs == answer


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


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), r"2.00 GiB\. Not enough memory"),
        (TypeError("unexpected argument\nmore"), r"a step failed .* \(TypeError: unexpected argument\)\. Set fuse: fa"),
        (
            torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"),
            "use_cuda_graph: false",
        ),
    ],
)
def test_a_step_of_the_warm_up_that_fails_ends_the_start(
    make: Make, exact: None, error: Exception, reported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers says "Failed to warm up" and goes on; the step would have failed again while measuring."""
    step, steps = ModelRunner._forward_process_and_sample, []

    def fail_once(*given: object) -> None:
        steps.append(given)
        if len(steps) == 1:
            raise error
        step(*given)

    monkeypatch.setattr(ModelRunner, "_forward_process_and_sample", fail_once)
    monkeypatch.setattr(ModelRunner, "warmup", lambda runner, model: runner.run_one_warmup(model, 32, 0))
    with pytest.raises(SetupError, match=rf"Continuous batching cannot start: .*{reported}"):
        make(attention=PAGED_FLASH, page_size=16)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_the_warm_up_asks_for_no_unknown_position(
    family: str, exact: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its longest step is one request of all its tokens. A GPU that reads past a table is of no use afterwards."""
    make_tiny_model(tmp_path / "tokenizer")
    settings = save(family, tmp_path / "model", tmp_path / "tokenizer")  # 512 positions
    steps: list[float] = []

    def warm_up(runner: ModelRunner, model: Any) -> None:
        steps.append(runner.run_one_warmup(model, 700, 0))

    monkeypatch.setattr(ModelRunner, "warmup", warm_up)
    options = {"attention": PAGED_FLASH, "page_size": 16, "num_blocks": 64, "max_batch_tokens": 1024}
    engine = continuous.Engine(settings, GREEDY, options)
    engine.load()
    engine.close()
    assert len(steps) == 1
    assert steps[0] > 0
