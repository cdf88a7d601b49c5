"""A replica's process: one engine, controlled over a pipe. It imports no torch before its GPU is chosen."""

from __future__ import annotations

import os
import queue
import signal
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmark.errors import BenchmarkError, InputError, SetupError, Unfit, in_words
from benchmark.node.interfaces import Answer, Demands, Engine, EngineBroken, Query
from benchmark.node.registry import plain_engine
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.settings import Settings


@dataclass(frozen=True)
class Assignment:
    """Which engine a replica hosts, and with which part of the node."""

    number: int
    engine: str
    settings: Settings
    generation: Generation
    options: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables: which GPU, how many threads."""
    demands: Demands = field(default_factory=Demands)


@dataclass(frozen=True)
class Loaded:
    """The engine is ready."""

    info: EngineInfo
    device: str


@dataclass(frozen=True)
class NotLoaded:
    """The engine cannot be loaded; the reason, and the kind of error to raise."""

    reason: str
    kind: type[BenchmarkError]


@dataclass(frozen=True)
class Broken:
    """The engine cannot answer any more."""

    reason: str


@dataclass(frozen=True)
class FirstToken:
    """The first token of a query. `at_ns` is read in the replica: all processes of a host share the clock."""

    key: int
    at_ns: int
    token_id: int | None


@dataclass(frozen=True)
class Ended:
    """The end of a query: its answer, or an error."""

    key: int
    at_ns: int
    answer: Answer | None
    error: str


@dataclass(frozen=True)
class Ask:
    """A query for the replica, with the parent's key."""

    key: int
    query: Query


@dataclass(frozen=True)
class Cancel:
    """The answer for that key is not needed any more."""

    key: int


def serve(assignment: Assignment, pipe: Connection) -> None:
    """Host an engine until the pipe's other end closes."""
    # The parent decides when a run ends; it closes the pipe, also when it dies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(assignment.environment)
    asked: queue.SimpleQueue[Ask | Cancel] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, asked), daemon=True).start()
    teller = _Teller(pipe)
    try:
        made = plain_engine(assignment.engine, assignment.settings, assignment.generation, assignment.options)
        made.demands = assignment.demands
        info = made.load()
    except Exception as error:
        reason = in_words(error)
        kind = next((kind for kind in (InputError, Unfit) if isinstance(error, kind)), SetupError)
        teller.send(NotLoaded(reason, kind))
        return
    teller.send(Loaded(info, _device(assignment.settings.benchmark_device)))
    while True:
        message = asked.get()
        if isinstance(message, Ask):
            _answer(made, message, teller)
        elif query := teller.forget(message.key):
            made.cancel(query)


def _read(pipe: Connection, asked: queue.SimpleQueue[Ask | Cancel]) -> None:
    """Forward queries; end the process when the parent is gone, whatever the engine is doing."""
    try:
        while True:
            asked.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)


def _answer(engine: Engine, ask: Ask, teller: _Teller) -> None:
    teller.keys[id(ask.query)] = ask
    try:
        engine.submit(ask.query, teller)
    except EngineBroken as error:
        teller.failed(ask.query, str(error))
        teller.send(Broken(str(error)))
    except Exception as error:  # as in the recorder: any exception of an engine is a failed query
        teller.failed(ask.query, in_words(error))


class _Teller:
    """A listener that writes to the pipe; thread-safe."""

    def __init__(self, pipe: Connection) -> None:
        # By identity: an index may occur twice, in a warm-up and in the run. Holding the query keeps its id unique.
        self.keys: dict[int, Ask] = {}
        self._pipe = pipe
        self._lock = threading.Lock()

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        if ask := self.keys.get(id(query)):
            self.send(FirstToken(ask.key, at_ns, token_id))

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        if ask := self.keys.pop(id(query), None):
            self.send(Ended(ask.key, at_ns, answer, ""))

    def failed(self, query: Query, error: str) -> None:
        if ask := self.keys.pop(id(query), None):
            self.send(Ended(ask.key, 0, None, error))

    def forget(self, key: int) -> Query | None:
        """Report nothing more about a query; None: it has ended."""
        ask = next((ask for ask in list(self.keys.values()) if ask.key == key), None)
        return self.keys.pop(id(ask.query), ask).query if ask else None

    def send(self, message: object) -> None:
        try:
            with self._lock:
                self._pipe.send(message)
        except OSError:
            os._exit(0)  # the parent is gone


def _device(kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(0))
