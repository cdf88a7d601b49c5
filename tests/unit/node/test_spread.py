"""A model over two processes with transformers' tensor parallelism: the same tokens as one process gives."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from benchmark.errors import InputError, SetupError
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Answer, EngineBroken, Prompt, Query
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.spread import Spread
from benchmark.profiles import Generation
from benchmark.settings import Settings

TOKENS = 12
GENERATION = Generation(max_new_tokens=TOKENS, min_new_tokens=TOKENS)


class Heard:
    """What an engine reports of one query."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.first: list[int | None] = []
        self.answer: Answer | None = None
        self.error = ""

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        self.first.append(token_id)

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        self.answer = answer
        self.over.set()

    def failed(self, query: Query, error: str) -> None:
        self.error = error
        self.over.set()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("made") / "tiny"
    make_tiny_model(directory)
    return Settings(benchmark_model=str(directory), benchmark_device="cpu", benchmark_dtype="float32")


def answers(engine: Any, queries: int) -> list[Heard]:
    each = []
    for number in range(queries):
        heard = Heard()
        engine.submit(Query(number, Prompt(f"{number}", text=f"Say {number}."), seed=number, greedy=number < 2), heard)
        assert heard.over.wait(120)
        each.append(heard)
    return each


def test_two_processes_give_the_tokens_of_one_and_end_together(settings: Settings) -> None:
    alone = make_engine("sequential", settings, GENERATION, {})
    alone.load()
    wanted = [heard.answer.token_ids for heard in answers(alone, 3) if heard.answer]
    engine = make_engine("sequential", settings, GENERATION, {"tensor_parallel": 2})
    assert isinstance(engine, Spread)
    info = engine.load()
    try:
        assert (info.replicas, info.details["tensor_parallel"], engine.together) == (2, 2, True)
        found = answers(engine, 3)
        assert [heard.answer.token_ids for heard in found if heard.answer] == wanted
        assert [len(tokens) for tokens in wanted] == [TOKENS] * 3
        assert [heard.first for heard in found] == [[tokens[0]] for tokens in wanted]
        # One that dies: the other would wait for it.
        os.kill(engine._replicas[1].process.pid or 0, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while any(replica.process.is_alive() for replica in engine._replicas):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(EngineBroken, match=r"Replica 1 .* was killed by SIGKILL"):
            engine.submit(Query(0, Prompt("0", text="Say."), seed=0), Heard())
    finally:
        engine.close()


def test_what_cannot_be_spread(settings: Settings) -> None:
    engine = make_engine("sequential", settings, GENERATION, {"tensor_parallel": 3})
    with pytest.raises(SetupError, match=r"has 4 heads .* which cannot be split evenly"):
        engine.load()
    with pytest.raises(InputError, match="tensor_parallel is 0: it must be at least 1"):
        make_engine("sequential", settings, GENERATION, {"tensor_parallel": 0})
