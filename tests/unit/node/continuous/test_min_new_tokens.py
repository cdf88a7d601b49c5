"""No answer ends before it has `min_new_tokens`: with many in flight as with one alone, and with the same tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from transformers import ContinuousBatchingConfig, LogitsProcessorList, MinNewTokensLengthLogitsProcessor
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState, RequestStatus

import benchmark.node.continuous
from benchmark.errors import Unfit
from benchmark.node.continuous import attention as kernels
from benchmark.node.continuous.logits_processors import Drawn, MinNewTokens, insert
from benchmark.node.engines import continuous, sequential
from benchmark.node.interfaces import Demands, Engine, Query
from benchmark.node.model.generation import generation_config
from benchmark.node.model.load import LoadedModel, load_model
from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.unit.node.continuous.asked import QUERIES as MANY
from tests.unit.node.heard import Heard

MOST = 12
QUERIES = MANY[:12]
Tokens = dict[int, tuple[int, ...]]


@pytest.fixture(scope="module")
def alone(settings: Settings) -> LoadedModel:
    """The model of the engine `sequential`: one that was batched attends over pages from then on."""
    return load_model(settings)


@pytest.fixture(scope="module")
def batched(settings: Settings) -> LoadedModel:
    return load_model(settings)


@pytest.fixture(scope="module")
def ends(settings: Settings, alone: LoadedModel) -> list[int]:
    """The tokens that the model chooses first, so that answers would end at once, and a third of all others."""
    with started(sequential.Engine(settings, Generation(max_new_tokens=1), {}), alone, [511]) as engine:
        first = ask(engine, QUERIES)
    return sorted({answer[0] for answer in first.values()} | {*range(0, 512, 3)})


@contextmanager
def started(engine: Any, loaded: LoadedModel, ends: list[int] | None) -> Iterator[Any]:
    """An engine of a model whose answers end with these."""
    loaded.model.generation_config.eos_token_id = ends
    engine.start(loaded)
    try:
        yield engine
    finally:
        engine.close()


def ask(engine: Engine, queries: list[Query]) -> Tokens:
    heard = Heard()
    for query in queries:
        engine.submit(query, heard)
    heard.wait(len(queries))
    assert not heard.errors
    return heard.tokens


@pytest.mark.parametrize("least", [0, 1, 2, 4, MOST])
@pytest.mark.parametrize("options", [{}, {"max_batch_tokens": 16}], ids=["whole prompts", "prompts in pieces"])
def test_many_at_once_end_where_one_alone_does(
    settings: Settings,
    alone: LoadedModel,
    batched: LoadedModel,
    ends: list[int],
    least: int,
    options: dict[str, Any],
) -> None:
    generation = Generation(max_new_tokens=MOST, min_new_tokens=least)
    with started(sequential.Engine(settings, generation, {}), alone, ends) as engine:
        expected = ask(engine, QUERIES)
    with started(continuous.Engine(settings, generation, options), batched, ends) as engine:
        assert ask(engine, QUERIES) == expected
    # The end itself is a token too: the first that may be one is the one after.
    assert min(map(len, expected.values())) == min(least + 1, MOST)


def test_answers_have_the_length_their_prompt_says(
    settings: Settings, alone: LoadedModel, batched: LoadedModel, ends: list[int]
) -> None:
    """Whatever the model would have ended with, and beside answers that may end."""
    exact = [
        replace(query, prompt=replace(query.prompt, output_tokens=1 + query.index)) if query.index % 3 else query
        for query in QUERIES
    ]
    generation = Generation(max_new_tokens=MOST, min_new_tokens=0)
    answers = []
    for engine, model in ((sequential.Engine, alone), (continuous.Engine, batched)):
        made = engine(settings, generation, {})
        made.demands = Demands(texts=True, lengths=True)
        with started(made, model, ends) as ready:
            answers.append(ask(ready, exact))
    assert answers[0] == answers[1]
    assert all(len(answers[0][query.index]) == 1 + query.index for query in exact if query.index % 3)
    assert {len(answers[0][query.index]) for query in exact if not query.index % 3} == {1}


def test_a_request_that_made_room_keeps_count_of_its_tokens(
    settings: Settings, alone: LoadedModel, batched: LoadedModel, ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = Generation(max_new_tokens=48, min_new_tokens=40)
    # One that comes again has what it answered in its prompt.
    again = Mock(side_effect=RequestState.create_equivalent_initial_request)
    monkeypatch.setattr(RequestState, "create_equivalent_initial_request", lambda state: again(state))
    with started(sequential.Engine(settings, generation, {}), alone, ends) as engine:
        expected = ask(engine, QUERIES)
    with started(continuous.Engine(settings, generation, {"page_size": 16, "num_blocks": 26}), batched, ends) as engine:
        assert ask(engine, QUERIES) == expected
    assert again.called
    assert 40 < min(map(len, expected.values())) < 48


@pytest.mark.parametrize("more", [{}, {"top_k": 20, "top_p": 0.9}])
def test_with_sampling_no_answer_ends_early_either(
    settings: Settings, alone: LoadedModel, batched: LoadedModel, more: dict[str, Any]
) -> None:
    generation = Generation(max_new_tokens=MOST, min_new_tokens=4, temperature=1.5, **more)
    often = list(range(0, 512, 2))  # half of all tokens
    greedy = replace(QUERIES[0], greedy=True)
    with started(sequential.Engine(settings, generation, {}), alone, often) as engine:
        expected = ask(engine, [greedy])
    with started(continuous.Engine(settings, generation, {}), batched, often) as engine:
        answers = ask(engine, [greedy, *QUERIES[1:]])
    assert answers[0] == expected[0]
    assert all(not {*answer[:4]} & {*often} for answer in answers.values())
    assert 4 < min(map(len, answers.values())) < MOST


@pytest.mark.parametrize("least", [1, MOST])
def test_a_model_without_an_end_answers_in_full_length(
    settings: Settings, alone: LoadedModel, batched: LoadedModel, least: int
) -> None:
    generation = Generation(max_new_tokens=MOST, min_new_tokens=least)
    tokenizer = deepcopy(alone.tokenizer)
    tokenizer.eos_token = None
    with started(sequential.Engine(settings, generation, {}), replace(alone, tokenizer=tokenizer), None) as engine:
        expected = ask(engine, QUERIES[:2])
    with started(continuous.Engine(settings, generation, {}), replace(batched, tokenizer=tokenizer), None) as engine:
        assert ask(engine, QUERIES[:2]) == expected
    assert {*map(len, expected.values())} == {MOST}


def test_without_a_least_length_no_step_looks_at_it(settings: Settings, batched: LoadedModel, ends: list[int]) -> None:
    with started(continuous.Engine(settings, Generation(max_new_tokens=MOST), {}), batched, ends) as engine:
        assert not engine._manager.logit_processor.do_processing
    least = Generation(max_new_tokens=MOST, min_new_tokens=1)
    with started(continuous.Engine(settings, least, {}), batched, ends) as engine:
        assert engine._manager.logit_processor.do_processing


def test_a_transformers_that_cannot_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(benchmark.node.continuous, "logits_processors")
    monkeypatch.setitem(sys.modules, "benchmark.node.continuous.logits_processors", None)
    monkeypatch.setattr(continuous, "load_model", Mock(side_effect=AssertionError))
    engine = continuous.Engine(settings, Generation(max_new_tokens=MOST, min_new_tokens=1), {})
    with pytest.raises(
        Unfit, match=r"cannot choose tokens for each query separately.*: install the one in requirements-no"
    ):
        engine.load()


# The processor by itself.


def request(prompt: int, processed: int, **more: Any) -> FutureRequestState:
    """A request of which so many tokens, prompt and answer, are in the cache once its next step is done."""
    state = RequestState("r", [0] * prompt, **more)
    state.status, state.position_offset = RequestStatus.DECODING, processed
    return FutureRequestState(state, has_new_token=True, complete_blocks={}, query_length=1)


def test_tokens_are_counted_that_are_still_being_computed(batched: LoadedModel) -> None:
    kernels.use(batched.model, "paged|eager")
    chosen = generation_config(batched, Generation(max_new_tokens=8, min_new_tokens=2), 0)
    batching = ContinuousBatchingConfig(page_size=16, num_blocks=8, max_batch_tokens=16, auto_switch_to_flash=False)
    manager = batched.model.init_continuous_batching(chosen, batching)
    insert(manager, MinNewTokens(2, [7]))
    steps = manager._create_batch_processor()
    arguments = steps.inputs_and_outputs._bulk_input_tensor[steps.inputs_and_outputs.static_inputs]
    state = RequestState("r", [5] * 20, max_new_tokens=8)
    steps.scheduler.add_waiting_request(state)
    asked = []
    for _ in range(5):  # each is prepared before the one before has told its token, as asynchronous batching does
        assert steps.prepare_next_batch()
        asked.append(int(arguments[0]))
    assert not state.generated_tokens
    assert asked == [0, 1, 1, 0, 0]  # the first reads a piece of the prompt, and the second its rest


def test_a_request_that_comes_again_has_answered_before() -> None:
    processor = MinNewTokens(4, [7])
    state = RequestState("r", [0] * 5, logit_processor_kwargs={"min_new_tokens": 3})
    state.generated_tokens = [1, 2]
    once = state.create_equivalent_initial_request()
    assert (len(once.initial_tokens), once._true_initial_tokens) == (7, 5)
    once.generated_tokens = [3]
    for again, known in ((once, 7), (once.create_equivalent_initial_request(), 8)):
        asked = []
        for processed in (known, 8, 9):
            again.position_offset = processed
            asked += processor.prepare_tensor_args([FutureRequestState(again, True, {}, 1)]).tolist()
        assert asked == [known < 8, 0, 0]


def test_a_request_can_ask_for_less() -> None:
    requests = [request(5, 5, logit_processor_kwargs={"min_new_tokens": least}) for least in (0, 1, 4)]
    assert MinNewTokens(4, [7]).prepare_tensor_args([*requests, request(5, 8)]).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("ends", [[3], [3, 0, 9], [3, -1, 10, 511]])
def test_what_is_struck_out_is_what_generate_strikes_out(ends: list[int]) -> None:
    scores = torch.randn(4, 10)
    prompt = torch.zeros(1, 5, dtype=torch.long)
    inside = [end for end in ends if 0 <= end < 10]
    early = MinNewTokensLengthLogitsProcessor(5, 1, inside)(prompt, scores)
    expected = torch.stack([early[0], scores[1], early[2], scores[3]])
    assert MinNewTokens(1, ends)(scores.clone(), torch.tensor([1, 0, 1, 0, 1, 1], dtype=torch.int32)).equal(expected)


def test_a_recorded_step_goes_by_what_is_in_its_buffers() -> None:
    """As a CUDA graph does: operations once recorded, run again on tensors at the same place with other contents.

    Recording refuses what would look at values from Python.
    """
    steps = ContinuousBatchingLogitsProcessorList(LogitsProcessorList())
    manager = Mock(logit_processor=steps)
    insert(manager, Drawn())
    insert(manager, MinNewTokens(2, [3, 9]))
    assert [type(one) for one in steps.logits_processor] == [MinNewTokens, Drawn]
    assert steps.tensors_required == 2
    inputs, scores = torch.zeros(4, dtype=torch.long), torch.zeros(4, 10)
    arguments = torch.full((2, 8), 99, dtype=torch.int32)
    steps.fill_defaults(arguments)
    assert not arguments.any()
    recorded = make_fx(lambda scores, arguments: steps(inputs, scores, arguments[:, :4]))(scores, arguments)
    likely = torch.arange(10.0).repeat(4, 1)  # 9 is the most likely, then 8
    for processed, greedy, expected in (
        ([5, 6, 7, 8], [True] * 4, [8, 8, 9, 9]),
        ([9, 5, 5, 9], [True, False, True, False], [9, 8, 8, 9]),
        ([5], [True], [8]),
    ):
        words = [{"greedy": one} for one in greedy]
        requests = [
            request(5, known, logit_processor_kwargs=word) for known, word in zip(processed, words, strict=True)
        ]
        steps.prepare_tensor_args(requests, arguments)
        scores.copy_(likely)
        chosen = recorded(scores, arguments)
        for row, asked, best, short in zip(chosen, greedy, expected, arguments[0], strict=False):
            struck = row.isinf().nonzero().flatten().tolist()
            assert struck == ([3, 9] if short else [])
            assert not asked or row.argmax() == best  # else another may be drawn


def test_a_recorded_step_draws_by_each_querys_own_seed() -> None:
    drawn = Drawn()
    arguments, scores = torch.zeros(8, dtype=torch.int32), torch.randn(4, 512)
    recorded = make_fx(lambda scores, arguments: drawn(scores, arguments))(scores, arguments)
    seen = set()
    for seed in (0, 1, 2**40 + 1):
        requests = [request(5, 5 + place, logit_processor_kwargs={"seed": seed}) for place in range(4)]
        arguments[:4] = drawn.prepare_tensor_args(requests)
        chosen = recorded(scores, arguments)
        assert chosen.equal(drawn(scores, arguments))
        seen.add(tuple(chosen.argmax(-1).tolist()))
    assert len(seen) == 3


def test_a_greedy_query_gets_the_most_likely_token() -> None:
    drawn, scores = Drawn(), torch.randn(2000, 32)
    words = [{"seed": number, "greedy": number % 2 == 0} for number in range(2000)]
    requests = [request(5, 5, logit_processor_kwargs=one) for one in words]
    chosen = drawn(scores, drawn.prepare_tensor_args(requests)).argmax(-1)
    same = chosen == scores.argmax(-1)
    assert same[::2].all()
    assert not same[1::2].all()


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    drawn, likely = Drawn(), torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    for asked in ([(seed, 0) for seed in range(4000)], [(7, place) for place in range(4000)]):
        requests = [request(5, 5 + place, logit_processor_kwargs={"seed": seed}) for seed, place in asked]
        tokens = drawn(likely.log().repeat(4000, 1), drawn.prepare_tensor_args(requests)).argmax(-1)
        # Four standard deviations of a share of 4,000 draws.
        assert torch.allclose(torch.bincount(tokens, minlength=5) / 4000, likely, rtol=0, atol=0.032)
