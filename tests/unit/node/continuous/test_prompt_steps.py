"""Steps with prompts that are recorded, and padded to those."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmark.errors import SetupError
from benchmark.node.continuous import attention, graphs, layout
from benchmark.node.continuous.prompt_steps import PromptSteps
from benchmark.node.engines import continuous
from benchmark.node.model.load import LoadedModel
from benchmark.settings import Settings
from tests import architectures
from tests.unit.node.continuous.asked import GREEDY, QUERIES, Make, ask


class Again(graphs.Graph):
    """A CPU has no graphs: the same calls once more, on what lies in memory then."""

    def __init__(self, pool: Any, run: Callable[[], None]) -> None:
        self._run = run

    def replay(self) -> None:
        self._run()


@pytest.fixture
def recorded(exact: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Again]], None]:
    """Have steps of up to 32 tokens recorded by such a graph."""

    def use(graph: type[Again]) -> None:
        monkeypatch.setattr(graphs, "wanted", lambda options, device: 32)
        monkeypatch.setattr(graphs, "LEAST", 24)
        monkeypatch.setattr(graphs, "Graph", graph)
        monkeypatch.setattr(PromptSteps, "_timed", lambda steps, size: size)

    return use


RECORDED: dict[str, Any] = {"attention": attention.PAGED_FLASH, "max_batch_tokens": 32, "page_size": 16}


def test_steps_with_prompts_are_padded_to_those_recorded(
    make: Make,
    one_at_a_time: dict[int, tuple[int, ...]],
    recorded: Callable[[type[Again]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []

    def noted(steps: PromptSteps, inputs: dict[str, Any], places: layout.Places) -> None:
        ran.append((places.written, places.answering > 0, places.tiles > 0))
        run(steps, inputs, places)

    run = PromptSteps.run
    monkeypatch.setattr(PromptSteps, "run", noted)
    recorded(Again)
    engine, info = make(**RECORDED)
    assert info.details["cuda_graphs"] == {"varlen": False, "decode": False, "prompts": [24, 30, 32]}
    ran.clear()
    assert ask(engine, QUERIES).tokens == one_at_a_time
    assert {tokens for tokens, _, _ in ran} - set(graphs.sizes(32))  # padded
    assert {step[1:] for step in ran} >= {(False, True), (True, True)}


def test_a_size_that_a_larger_one_beats_is_not_used(
    make: Make,
    one_at_a_time: dict[int, tuple[int, ...]],
    recorded: Callable[[type[Again]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded(Again)
    monkeypatch.setattr(PromptSteps, "_timed", lambda steps, size: {24: 1, 30: 3, 32: 2}[size])
    engine, info = make(**RECORDED)
    prompts: Any = info.details["cuda_graphs"]
    assert prompts["prompts"] == [24, 32]
    assert ask(engine, QUERIES).tokens == one_at_a_time


def test_no_longer_steps_are_recorded_than_pages_hold(make: Make, recorded: Callable[[type[Again]], None]) -> None:
    recorded(Again)
    _, info = make(**{**RECORDED, "num_blocks": 2, "max_batch_tokens": 64})
    prompts: Any = info.details["cuda_graphs"]
    assert prompts["prompts"] == [24, 30, 32]
    _, info = make(**{**RECORDED, "num_blocks": 1})
    prompts = info.details["cuda_graphs"]
    assert prompts["prompts"] == [16]


def test_a_head_that_reads_more_than_states_is_recorded(
    settings: Settings, loaded: LoadedModel, recorded: Callable[[type[Again]], None]
) -> None:
    recorded(Again)
    engine = continuous.Engine(settings, GREEDY, RECORDED)
    info = engine.start(replace(loaded, model=architectures.model("olmoe")))
    engine.close()
    prompts: Any = info.details["cuda_graphs"]
    assert prompts["prompts"] == [24, 30, 32]


@pytest.mark.parametrize("taken", [0, 1, 2], ids=["layers", "choices", "fewer choices"])
def test_what_cannot_be_recorded_is_served_without_and_said(
    make: Make, one_at_a_time: dict[int, tuple[int, ...]], recorded: Callable[[type[Again]], None], taken: int
) -> None:
    made = itertools.count()

    class Refused(Again):
        def __init__(self, pool: Any, run: Callable[[], None]) -> None:
            super().__init__(pool, run)
            if next(made) >= taken:
                raise RuntimeError("operation not permitted when stream is capturing")

    recorded(Refused)
    engine, info = make(**RECORDED)
    said: Any = info.details["cuda_graphs"]
    assert said["prompts"] == "not recorded: RuntimeError: operation not permitted when stream is capturing"
    assert ask(engine, QUERIES).tokens == one_at_a_time


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 2 GiB.", "CUDA error: out of memory"])
def test_full_memory_is_no_reason_to_serve_without(
    make: Make, recorded: Callable[[type[Again]], None], text: str
) -> None:
    class Full(Again):
        def __init__(self, pool: Any, run: Callable[[], None]) -> None:
            raise RuntimeError(text)

    recorded(Full)
    with pytest.raises(SetupError, match="out of memory"):
        make(**RECORDED)


def test_of_a_model_that_computes_all_logits_no_step_is_recorded(
    make: Make, recorded: Callable[[type[Again]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(Again)
    monkeypatch.setattr(ModelRunner, "supports_logits_to_keep", lambda runner, model: False)
    said: Any = make(**RECORDED)[1].details["cuda_graphs"]
    assert said["prompts"] == "not recorded: NotImplementedError: the model has no logits_to_keep"


def test_of_large_states_a_last_bit_is_no_wrong_step(
    make: Make, loaded: LoadedModel, recorded: Callable[[type[Again]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained norms make states of a hundred and more, where half precision has steps of a half."""

    steps: list[PromptSteps] = []

    class Rounded(Again):
        def replay(self) -> None:
            super().replay()
            steps[0]._states *= 1 + 2**-8

    def record(own: PromptSteps, *given: Any) -> None:
        steps[:] = [own]
        plain_record(own, *given)

    plain_record = PromptSteps.record
    monkeypatch.setattr(PromptSteps, "record", record)
    weight = loaded.model.model.norm.weight
    plain = weight.data.clone()
    weight.data *= 200
    recorded(Rounded)
    try:
        _, info = make(**RECORDED)
    finally:
        weight.data = plain
    said: Any = info.details["cuda_graphs"]
    assert said["prompts"] == [24, 30, 32]


def test_a_recorded_step_that_is_wrong_is_found_before_the_run(
    make: Make, recorded: Callable[[type[Again]], None]
) -> None:
    class Stale(Again):
        def replay(self) -> None:
            """Compute nothing."""

    recorded(Stale)
    with pytest.raises(SetupError, match=r"a step of 32 tokens in CUDA graphs is off by \d"):
        make(**RECORDED)
