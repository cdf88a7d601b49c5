"""An engine `endpoint` that is asked by hand, and what is heard of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from benchmark.node.engines.endpoint import Engine
from benchmark.node.interfaces import Answer, Prompt, Query, now_ns
from benchmark.profiles import Generation
from benchmark.records import EngineInfo

SIX = Generation(max_new_tokens=6, min_new_tokens=6, temperature=0.7, seed=1)


TEXT = Query(index=0, prompt=Prompt(id="p", text="Explain photosynthesis."), seed=5)


IDS = Query(index=0, prompt=Prompt(id="p", text="Explain photosynthesis.", token_ids=(11, 12, 13)), seed=5)


class Heard:
    """A listener that remembers, and holds a query to what the interface promises."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.answers: dict[int, tuple[int, Answer]] = {}
        self.errors: dict[int, str] = {}
        self.first_came = threading.Event()
        self._ended = threading.Semaphore(0)

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        assert query.index not in self.first | self.answers | self.errors
        self.first[query.index] = at_ns
        self.first_came.set()

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        assert query.index not in self.answers | self.errors
        assert self.first[query.index] <= at_ns <= now_ns()
        self.answers[query.index] = (at_ns, answer)
        self._ended.release()

    def failed(self, query: Query, error: str) -> None:
        assert query.index not in self.answers | self.errors
        self.errors[query.index] = error
        self._ended.release()

    def wait(self, queries: int = 1) -> None:
        for _ in range(queries):
            assert self._ended.acquire(timeout=120)


class Known(Engine):
    """The engine, with what `load` said."""

    info: EngineInfo

    def load(self) -> EngineInfo:
        self.info = super().load()
        return self.info


Loaded = Callable[..., Known]


def ask(engine: Engine, query: Query = TEXT) -> Heard:
    heard = Heard()
    engine.submit(query, heard)
    heard.wait()
    return heard


def plain(heard: Heard) -> tuple[int, int, tuple[int, ...], str | None]:
    """Return tokens in and out, ids and text of the one answer."""
    ((_, answer),) = heard.answers.values()
    return answer.input_tokens, answer.output_tokens, answer.token_ids, answer.text
