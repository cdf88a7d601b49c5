"""Families as a GPU serves them: warm-up, graphs, kernels and pairs of inputs, by stand-ins that refuse the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.errors import Unfit
from benchmark.node.continuous import attention, manager
from benchmark.node.continuous.step_runner import StepRunner
from benchmark.node.model.tiny import make_tiny_model
from tests import architectures, as_gpu
from tests.recorded import CAPTURING, Graph

RECORDED = {"varlen": False, "decode": True, "prompts": [128, 160]}
Serve = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tiny"
    make_tiny_model(directory)
    return directory


@pytest.fixture
def serve(tokenizer: Path, tmp_path: Path) -> Serve:
    """Answer as on a GPU, and see that the answers are right; return the details."""

    def ask(family: str, waiting: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
        settings = architectures.save(family, tmp_path / "model", tokenizer)
        with as_gpu.as_gpu(waiting=waiting):
            same, details = as_gpu.serve(settings, **options)
        assert same
        return details

    return ask


# Of each kind one: experts, positions in a table, a part of each head turned, sizes that no kernel for layers takes.
@pytest.mark.parametrize(
    "family", ["llama", "qwen3_moe", "gpt2", "opt", "phi", "glm4", "longrope", "odd sizes", "one kv head"]
)
def test_a_family_is_served_from_graphs(family: str, serve: Serve) -> None:
    details = serve(family)
    assert details["attention"] == attention.PAGED_FLASH
    assert (details["cuda_graphs"], details["async_batching"]) == (RECORDED, True)


def test_all_kinds_of_steps_run_before_anything_is_measured(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[set[int]] = []
    tokens: list[int] = []

    def warm_up(own: Any, positions: int | None) -> None:
        plain_warm_up(own, positions)
        pairs = own.batch_processor.inputs_and_outputs.io_pairs
        graphs.extend({key[0] for key in pair.device_io.graphs._storage} for pair in pairs)

    def step(runner: StepRunner, model: Any, num_q_tokens: int, max_kv_read: int | None) -> float:
        tokens.append(num_q_tokens)
        return plain_step(runner, model, num_q_tokens, max_kv_read)

    plain_warm_up, plain_step = manager.warm_up, StepRunner.run_one_warmup
    monkeypatch.setattr(manager, "warm_up", warm_up)
    monkeypatch.setattr(StepRunner, "run_one_warmup", step)
    serve("gpt2")  # has fewer positions than the longest step
    assert graphs == [{1, 2, 4, 8}] * 2
    assert tokens.count(as_gpu.OPTIONS["max_batch_tokens"]) == 2


@pytest.mark.parametrize(
    ("family", "attends"), [("gpt_oss", attention.EAGER), ("gemma2", attention.EAGER), ("short window", "sdpa")]
)
def test_what_the_kernels_do_not_know_is_served_without(family: str, attends: str, serve: Serve) -> None:
    assert serve(family)["attention"] == attends


# Products of experts wait for the GPU where torch has no kernel for all at once: in float16, and before sm_90.
@pytest.mark.parametrize(("family", "waiting"), [("dbrx", ()), ("qwen3_moe", ("_grouped_mm",))])
def test_a_model_whose_steps_wait_is_served_without_graphs(
    family: str, waiting: tuple[str, ...], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("ContinuousBatchingLogger").addHandler(caplog.handler)
    details = serve(family, waiting)
    logging.getLogger("ContinuousBatchingLogger").removeHandler(caplog.handler)
    assert "Failed to warm up" not in caplog.text, "it is served, and nothing has failed"
    assert details["attention"] == attention.PAGED_FLASH
    said = "not recorded: NotImplementedError: a step of the model waits for the GPU, to decide what to compute"
    assert details["cuda_graphs"] == {"varlen": False, "decode": False, "prompts": said}


def test_where_graphs_have_to_be_such_a_model_is_refused(serve: Serve) -> None:
    with pytest.raises(Unfit, match="cannot run this model's steps as CUDA graphs here: a step of the model waits"):
        serve("dbrx", require_cuda_graph=True)
    assert serve("llama", require_cuda_graph=True)["cuda_graphs"] == RECORDED


def test_a_graph_computes_with_the_numbers_of_then() -> None:
    number, given, made = 2, torch.ones(3), torch.zeros(3)
    kept: list[torch.Tensor] = []

    def run() -> None:
        kept.append(given * number)
        made.copy_(kept[0] + 1)

    with as_gpu.as_gpu():
        graph = Graph(None, run)
    assert made.tolist() == [0, 0, 0]  # what is recorded has not happened
    number = 5
    given.fill_(3)
    graph.replay()
    assert made.tolist() == [7, 7, 7]
    assert kept[0].isnan().all()  # another graph may have taken its place


@pytest.mark.parametrize(
    "run",
    [
        lambda one: one.sum().item(),
        lambda one: one[one > 0],
        lambda one: one.nonzero(),
        lambda one: torch.tensor([1.0], device=one.device),
        lambda one: one.tolist(),
        lambda one: bool(one.any()),
    ],
)
def test_what_waits_for_the_gpu_is_no_graph(run: Callable[[Any], Any]) -> None:
    one = torch.ones(3)
    with pytest.raises(RuntimeError, match=CAPTURING):
        Graph(None, lambda: run(one))
