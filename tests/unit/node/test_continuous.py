"""transformers' real continuous batching on a tiny Llama, on the CPU."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from transformers.generation.continuous_batching.model_runner import ModelRunner

from benchmark.continuous_options import Options
from benchmark.errors import InputError, RunError, SetupError
from benchmark.node.continuous import attention, exact_attention, flash, flash_kernels, fused, graphs, layout
from benchmark.node.continuous.manager import make_manager
from benchmark.node.continuous.prompt_steps import PromptSteps
from benchmark.node.engines import continuous, sequential
from benchmark.node.interfaces import EngineBroken, Prompt, Query
from benchmark.node.model.load import LoadedModel, load_model
from benchmark.node.model.tiny import make_tiny_model
from benchmark.profiles import Generation, load_profile
from benchmark.records import EngineInfo
from benchmark.settings import Settings
from tests import architectures
from tests.unit.node.continuous.plain_kernels import PlainKernels
from tests.unit.node.heard import Heard

GREEDY = Generation(max_new_tokens=8, min_new_tokens=8)
ENDLESS = Generation(max_new_tokens=1500, min_new_tokens=1500)
# Of unlike lengths, so that one is being read while another already answers.
QUERIES = [
    Query(index=i, prompt=Prompt(id=f"p{i}", text=f"Explain the number {i}. " + "Why? " * (i * 5 % 37)), seed=i)
    for i in range(16)
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny_model(directory)
    return Settings(benchmark_model=str(directory), benchmark_device="cpu", benchmark_dtype="float32")


@pytest.fixture(scope="module")
def loaded(settings: Settings) -> LoadedModel:
    return load_model(settings)


@pytest.fixture(scope="module")
def one_at_a_time(settings: Settings) -> dict[int, tuple[int, ...]]:
    """The right answers, of a model of its own: one that was batched attends over pages from then on."""
    engine, heard = sequential.Engine(settings, GREEDY, {}), Heard()
    engine.load()
    for query in QUERIES:
        engine.submit(query, heard)
    return heard.tokens


Make = Callable[..., tuple[continuous.Engine, EngineInfo]]


@pytest.fixture
def make(settings: Settings, loaded: LoadedModel) -> Iterator[Make]:
    made: list[continuous.Engine] = []

    def start(generation: Generation = GREEDY, **options: Any) -> tuple[continuous.Engine, EngineInfo]:
        made.append(continuous.Engine(settings, generation, options))
        return made[-1], made[-1].start(loaded)

    yield start
    for engine in made:
        engine.close()


def ask(engine: continuous.Engine, queries: list[Query]) -> Heard:
    heard = Heard()
    for query in queries:
        engine.submit(query, heard)
    heard.wait(len(queries))
    return heard


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


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All around the kernels, which are for GPUs, runs here: exact attention in their place, on pages of all sizes."""
    kernels = flash.Kernels("exact", exact_attention.answer, exact_attention.read, flash_kernels.torchs_write)
    monkeypatch.setattr(flash_kernels, "choose", lambda *about: kernels)
    monkeypatch.setattr(flash_kernels, "PAGE_MULTIPLE", 1)
    monkeypatch.setattr(attention, "missing", lambda *about: None)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("options", "in_tables"),
    [
        ({"page_size": 16}, True),
        ({"page_size": 512}, True),
        ({"page_size": 16, "max_blocks_per_request": 4}, True),
        ({"page_size": 16, "max_blocks_per_request": 0}, False),
        ({"page_size": 256, "num_blocks": 32, "max_requests_per_batch": 1}, True),
    ],
    ids=["many pages", "a page each", "some in few pages", "without tables", "as quick has them"],
)
def test_attention_of_ours_reads_and_writes_the_paged_cache(
    make: Make,
    one_at_a_time: dict[int, tuple[int, ...]],
    options: dict[str, Any],
    in_tables: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed = Mock(side_effect=layout.answering)
    monkeypatch.setattr(layout, "answering", placed)
    engine, info = make(attention=attention.PAGED_FLASH, max_batch_tokens=32, **options)
    assert info.details["attention"] == attention.PAGED_FLASH
    assert info.details["attention_kernels"] == "exact"
    placed.reset_mock()
    assert ask(engine, QUERIES).tokens == one_at_a_time
    # Steps in which all answer take transformers' tables, where it has some.
    assert placed.called == in_tables


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


def test_no_longer_steps_are_recorded_than_there_are_pages_for(
    make: Make, recorded: Callable[[type[Again]], None]
) -> None:
    recorded(Again)
    _, info = make(**{**RECORDED, "num_blocks": 2, "max_batch_tokens": 64})
    prompts: Any = info.details["cuda_graphs"]
    assert prompts["prompts"] == [24, 30, 32]
    _, info = make(**{**RECORDED, "num_blocks": 1})
    prompts = info.details["cuda_graphs"]
    assert prompts["prompts"] == [16]


def test_a_head_that_reads_more_of_its_layers_output_than_states_is_recorded(
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


def test_of_a_model_that_computes_all_logits_no_step_is_recorded(
    make: Make, recorded: Callable[[type[Again]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(Again)
    monkeypatch.setattr(ModelRunner, "supports_logits_to_keep", lambda runner, model: False)
    said: Any = make(**RECORDED)[1].details["cuda_graphs"]
    assert said["prompts"] == "not recorded: NotImplementedError: the model has no logits_to_keep"


def test_a_recorded_step_that_is_wrong_is_found_before_the_run(
    make: Make, recorded: Callable[[type[Again]], None]
) -> None:
    class Stale(Again):
        def replay(self) -> None:
            """Compute nothing."""

    recorded(Stale)
    with pytest.raises(SetupError, match=r"a step of 32 tokens in CUDA graphs is wrong by \d"):
        make(**RECORDED)


@pytest.mark.usefixtures("exact")
def test_the_warm_up_stays_within_the_pages_it_was_given(make: Make) -> None:
    """On a GPU an index beyond a table ends the process; here transformers only notes it, and 0 seconds."""
    engine, _ = make(**{**load_profile("quick").engine_options, "attention": attention.PAGED_FLASH})
    runner = engine._manager.batch_processor.model_runner
    for tokens, cached in ((1023, 0), (1024, 2048), (1, None)):
        assert runner.run_one_warmup(engine._model, tokens, cached) > 0
    assert ask(engine, QUERIES[:2]).tokens.keys() == {0, 1}


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


def test_only_first_tokens_and_ends_leave_the_generation_loop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = make()
    taken: list[str] = []
    take = engine._router._take

    def count(output: Any, at_ns: int) -> None:
        taken.append(output.request_id)
        take(output, at_ns)

    monkeypatch.setattr(engine._router, "_take", count)
    ask(engine, QUERIES)
    assert len(taken) == 2 * len(QUERIES)


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


def test_sampling_is_seeded(make: Make) -> None:
    def sampled(seed: int) -> dict[int, tuple[int, ...]]:
        generation = Generation(max_new_tokens=8, min_new_tokens=8, temperature=1.0, seed=seed)
        engine, _ = make(generation)
        return ask(engine, QUERIES[:1]).tokens

    assert sampled(1) == sampled(1) != sampled(2)


def test_a_sampled_answer_depends_on_its_seed_alone(make: Make, one_at_a_time: dict[int, tuple[int, ...]]) -> None:
    generation = Generation(max_new_tokens=8, min_new_tokens=8, temperature=1.0, top_k=40, seed=3)
    mixed = [replace(query, greedy=query.index % 4 == 0) for query in QUERIES]
    engine, _ = make(generation)
    together = ask(engine, mixed).tokens
    again, _ = make(generation, max_batch_tokens=16)
    # One by one, backwards, and after others: neither order nor company counts.
    apart = {index: tokens for query in reversed(mixed) for index, tokens in ask(again, [query]).tokens.items()}
    assert apart == together
    assert {index for index in together if together[index] == one_at_a_time[index]} == set(range(0, len(QUERIES), 4))
    same_prompt = [replace(QUERIES[1], index=number, seed=number) for number in range(8)]
    assert len(set(ask(again, same_prompt).tokens.values())) == 8


@pytest.mark.parametrize(
    "more", [{"temperature": 0.7}, {"temperature": 1.0}, {"temperature": 2.0, "top_k": 3, "top_p": 0.9}]
)
def test_a_greedy_query_among_sampled_ones_is_not_sampled(
    make: Make, one_at_a_time: dict[int, tuple[int, ...]], more: dict[str, Any]
) -> None:
    engine, _ = make(Generation(max_new_tokens=8, min_new_tokens=8, **more))
    greedy = range(0, len(QUERIES), 2)
    tokens = ask(engine, [replace(query, greedy=query.index in greedy) for query in QUERIES]).tokens
    assert {index: tokens[index] for index in greedy} == {index: one_at_a_time[index] for index in greedy}
    assert any(tokens[index] != one_at_a_time[index] for index in range(1, len(QUERIES), 2))


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


def test_an_error_of_one_query_is_its_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = make()
    scheduler = engine._manager.batch_processor.scheduler
    add = scheduler.add_waiting_request

    def refuse_second(state: Any) -> None:
        if state.request_id == "1":
            raise ValueError("no room")
        add(state)

    monkeypatch.setattr(scheduler, "add_waiting_request", refuse_second)
    heard = ask(engine, QUERIES[:3])
    assert heard.errors == {1: "no room."}
    assert set(heard.tokens) == {0, 2}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."), "the GPU's memory is full"),
        (RuntimeError("device-side assert"), "device-side assert"),
        (SystemExit(), "its thread ended without an error"),  # not even transformers catches that
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_generation_thread_fails_every_query_in_flight(make: Make, error: BaseException, said: str) -> None:
    engine, _ = make(ENDLESS)
    heard = Heard()
    for query in QUERIES[:3]:
        engine.submit(query, heard)
    heard.wait_for_first_tokens(3)

    def die() -> None:
        raise error

    engine._manager._generation_step = die
    heard.wait(3)
    assert all(said in text for text in heard.errors.values())
    engine._manager._generation_thread.join()
    with pytest.raises(EngineBroken):
        engine.submit(QUERIES[3], heard)


def test_a_query_that_nobody_waits_for_gives_its_pages_back(make: Make) -> None:
    engine, _ = make(ENDLESS)
    cache, heard = engine._manager.batch_processor.cache, Heard()
    free = cache.compute_free_capacity()
    for query in QUERIES[:2]:
        engine.submit(query, heard)
    heard.wait_for_first_tokens(2)
    assert cache.compute_free_capacity() < free
    for query in QUERIES[:3]:
        engine.cancel(query)
    deadline = time.monotonic() + 60
    while cache.compute_free_capacity() < free:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not heard.tokens | heard.errors


def test_closing_fails_what_is_in_flight_and_leaves_no_thread(make: Make) -> None:
    before = threading.active_count()
    engine, _ = make(ENDLESS)
    assert engine._manager._generation_thread.daemon
    heard = Heard()
    engine.submit(QUERIES[0], heard)
    heard.wait_for_first_tokens(1)
    engine.close()
    heard.wait(1)
    assert threading.active_count() == before
    engine.close()


@pytest.mark.parametrize(
    ("generation", "options", "error", "said"),
    [
        (GREEDY, {"batch": 4}, InputError, "engine_options of the continuous engine: batch"),
        (GREEDY, {"attention": "magic"}, InputError, "engine_options of the continuous engine: attention"),
        (GREEDY, {"page_size": 1}, InputError, "page_size"),
        (GREEDY, {"use_cuda_graph": True}, InputError, "need a GPU"),
        (GREEDY, {"attention": "flash_attention_2"}, SetupError, "flash_attention_2 is not to be had: it needs a GPU"),
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
    monkeypatch.setattr(continuous, "load_model", lambda settings: "loaded")
    monkeypatch.setattr(continuous.Engine, "start", lambda engine, loaded, plan: started.append((loaded, plan)))
    on_gpu = settings.model_copy(update={"benchmark_device": "cuda"})
    monkeypatch.setattr(continuous, "free_bytes", lambda: 3 * 2**30)
    continuous.Engine(on_gpu, GREEDY, {"num_blocks": 8, "max_batch_tokens": 64}).load()
    loaded, plan = started.pop()
    assert loaded == "loaded"
    assert plan.cache_tokens > 8 * 256
    assert plan.batch_tokens == 64
    assert "GPU memory: 3.2 GB to be had" in capsys.readouterr().err
    for free, options in ((2**29, {}), (3 * 2**30, {"num_blocks": 10**6})):
        monkeypatch.setattr(continuous, "free_bytes", lambda free=free: free)
        with pytest.raises(SetupError, match="The model does not fit"):
            continuous.Engine(on_gpu, GREEDY, options).load()
    assert not started


def test_an_absent_model_is_a_setup_error(tmp_path: Path) -> None:
    absent = Settings(benchmark_model=str(tmp_path), benchmark_device="cpu")
    with pytest.raises(SetupError, match="holds no model"):
        continuous.Engine(absent, GREEDY, {}).load()


@pytest.mark.parametrize(
    ("name", "asked", "graphs", "overlapped"),
    [
        ("flash_attention_2", {}, (False, True), True),
        ("paged_flash", {}, (False, True), True),
        ("paged_flash", {"use_cuda_graph": True, "use_async_batching": False}, (False, True), False),
        ("flash_attention_2", {"use_cuda_graph": True}, (True, True), True),
        ("paged_flash", {"use_cuda_graph": False}, False, True),
        ("sdpa", {}, None, None),
    ],
)
def test_automatic_choices_capture_no_graph_while_measuring(
    name: str, asked: dict[str, Any], graphs: Any, overlapped: Any
) -> None:
    # What transformers is asked for; a GPU would be needed to see what it makes of it.
    model = SimpleNamespace(
        device=SimpleNamespace(type="cuda"),
        config=SimpleNamespace(),
        set_attn_implementation=lambda implementation: None,
        init_continuous_batching=lambda config, batching: batching,
    )
    batching, _ = make_manager(model, None, Options.model_validate(asked), name, None, seed=0)
    assert (batching.use_cuda_graph, batching.use_async_batching) == (graphs, overlapped)
    assert not batching.allow_block_sharing
    assert not batching.auto_switch_to_flash
