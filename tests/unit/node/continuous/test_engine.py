"""transformers' real continuous batching on a tiny Llama, on the CPU."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.engines import continuous
from benchmark.node.interfaces import Prompt, Query
from benchmark.node.model.load import LoadedModel
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.unit.node.continuous.asked import GREEDY, QUERIES, Make, ask
from tests.unit.node.heard import Heard


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "sdpa"},
        {"max_batch_tokens": 16},
        {"page_size": 16, "num_blocks": 26},
    ],
    ids=["automatic", "sdpa", "prompts in pieces", "a full cache"],
)
def test_many_at_once_are_answered_as_one_at_a_time(
    make: Make, one_at_a_time: dict[int, tuple[int, ...]], options: dict[str, Any]
) -> None:
    engine, _ = make(**options)
    heard = ask(engine, QUERIES)
    assert not heard.errors
    assert heard.tokens == one_at_a_time
    assert all(heard.first[i] < heard.last[i] for i in heard.tokens)


def test_every_effective_choice_is_in_the_result(make: Make) -> None:
    _, info = make(page_size=16, num_blocks=40, max_batch_tokens=64)
    assert info.name == "continuous"
    assert not info.simulated
    expected = {
        "dtype": "float32",
        "attention": "paged|eager",
        "block_sharing": False,
        "page_size": 16,
        "num_blocks": 40,
        "kv_cache_tokens": 640,
        "max_batch_tokens": 64,
        "max_requests_per_batch": 64,
        "cuda_graphs": {"varlen": False, "decode": False, "prompts": []},
        "async_batching": False,
        "ends": "at max_new_tokens",
        "seed": 0,
        "warmed_up": True,
    }
    assert {name: info.details[name] for name in expected} == expected


@pytest.mark.parametrize("position", [0, 2])
def test_an_answer_ends_with_the_models_own_end(
    settings: Settings,
    loaded: LoadedModel,
    one_at_a_time: dict[int, tuple[int, ...]],
    position: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = one_at_a_time[0]
    end = whole[position]
    monkeypatch.setattr(loaded.model.generation_config, "eos_token_id", [end])
    with closing(continuous.Engine(settings, Generation(max_new_tokens=8), {})) as engine:
        assert engine.start(loaded).details["ends"] == [end]
        heard = ask(engine, QUERIES[:1])
    assert heard.tokens[0] == whole[: whole.index(end) + 1]
    assert (heard.first[0] == heard.last[0]) == (len(heard.tokens[0]) == 1)


def test_a_prompt_that_could_never_be_answered_is_refused(make: Make) -> None:
    engine, _ = make(page_size=16, num_blocks=2)
    for token_ids, said in (
        (range(25), "take 33 tokens; the KV cache holds 32"),
        ((), "has no tokens"),
        ((5, 512), "outside the model's 512"),
        ((-1,), "outside the model's 512"),
        ((1,) * 2041, "take 2049 tokens; the model has 2048 positions"),
    ):
        with pytest.raises(RunError, match=said):
            engine.submit(Query(0, Prompt("p", "", tuple(token_ids)), 0), Heard())
    fits = Query(1, Prompt("p", "", tuple(range(24))), 0)
    assert len(ask(engine, [fits]).tokens[1]) == 8


@pytest.mark.parametrize(
    ("generation", "options", "error", "said"),
    [
        (GREEDY, {"batch": 4}, InputError, "engine_options of the continuous engine: batch"),
        (GREEDY, {"attention": "magic"}, InputError, "engine_options of the continuous engine: attention"),
        (GREEDY, {"page_size": 1}, InputError, "page_size"),
        (GREEDY, {"use_cuda_graph": True}, InputError, "need a GPU"),
        (GREEDY, {"attention": "flash_attention_2"}, SetupError, "flash_attention_2 is not available: it needs a GPU"),
        (GREEDY, {"num_blocks": 10**9}, SetupError, "cannot start: Memory footprint"),
    ],
)
def test_what_the_engine_does_not_have_is_refused(
    settings: Settings, generation: Generation, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with closing(continuous.Engine(settings, generation, options)) as engine, pytest.raises(error, match=said):
        engine.load()


def test_on_a_gpu_the_memory_is_planned_before_loading(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(continuous, "load_model", lambda settings, texts: "loaded")
    monkeypatch.setattr(continuous.Engine, "start", lambda engine, loaded, plan: started.append((loaded, plan)))
    on_gpu = settings.model_copy(update={"benchmark_device": "cuda"})
    monkeypatch.setattr(continuous, "free_bytes", lambda: 3 * 2**30)
    continuous.Engine(on_gpu, GREEDY, {"num_blocks": 8, "max_batch_tokens": 64}).load()
    loaded, plan = started.pop()
    assert loaded == "loaded"
    assert plan.cache_tokens > 8 * 256
    assert plan.batch_tokens == 64
    assert "GPU memory: 3.2 GB available" in capsys.readouterr().err
    for free, options in ((2**29, {}), (3 * 2**30, {"num_blocks": 10**6})):
        monkeypatch.setattr(continuous, "free_bytes", lambda free=free: free)
        with pytest.raises(SetupError, match="The model does not fit"):
            continuous.Engine(on_gpu, GREEDY, options).load()
    assert not started


def test_an_absent_model_is_a_setup_error(tmp_path: Path) -> None:
    absent = Settings(benchmark_model=str(tmp_path), benchmark_device="cpu")
    with pytest.raises(SetupError, match="holds no model"):
        continuous.Engine(absent, GREEDY, {}).load()
