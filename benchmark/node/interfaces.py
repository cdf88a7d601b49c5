"""The three small interfaces of a run: scenario x engine x dataset. They know these types and not each other.

A new engine, scenario or dataset is one new file in `engines/`, `scenarios/` or `datasets/`, which holds a class
`Engine`, a class `Scenario` or a function `load() -> Dataset`; a profile names it by its file name.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.settings import Settings

# The one clock of a run. Wall-clock time is read once, when the measuring window begins.
now_ns = time.monotonic_ns


@dataclass(frozen=True)
class Prompt:
    """A conversation of one user message."""

    id: str
    text: str


@dataclass(frozen=True)
class Dataset:
    """The prompts, and the SHA-256 of the text they were read from."""

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str


@dataclass(frozen=True)
class Query:
    """One prompt to answer. `seed` belongs to the query, so that its answer does not depend on the order."""

    index: int
    prompt: Prompt
    seed: int


class Listener(Protocol):
    """What an engine tells about a query. The times are the engine's own reading of `now_ns`.

    May be called from any thread; for each query `first_token` comes at most once, then exactly one of the others.
    """

    def first_token(self, query: Query, at_ns: int) -> None:
        """The first output token is there."""

    def completed(self, query: Query, at_ns: int, input_tokens: int, token_ids: tuple[int, ...]) -> None:
        """The last output token is there."""

    def failed(self, query: Query, error: str) -> None:
        """There is no answer."""


class Engine(ABC):
    """What generates tokens: the system under test."""

    def __init__(self, settings: Settings, generation: Generation, options: dict[str, Any]) -> None:
        self.settings = settings
        self.generation = generation
        self.options = options

    @abstractmethod
    def load(self) -> EngineInfo:
        """Get ready to answer and say what was loaded. Raises SetupError where the node is not fit for it."""

    @abstractmethod
    def submit(self, query: Query, listener: Listener) -> None:
        """Answer a query. May return before the answer is there; the listener hears of it either way."""

    def close(self) -> None:  # noqa: B027 # most engines hold nothing that the process's end does not free
        """Let go of what `load` took."""


class Issuer(Protocol):
    """What a scenario issues its queries through: it stamps, submits and records."""

    def issue(self, query: Query, scheduled_ns: int) -> None:
        """Give the query to the engine; `scheduled_ns` is when the scenario wanted that."""

    def wait(self, query: Query) -> int:
        """Return when the query has completed or failed, with the time at which it did."""


class Scenario(ABC):
    """Who issues queries and when."""

    @abstractmethod
    def run(self, queries: list[Query], issuer: Issuer) -> None:
        """Issue the queries and return when all have completed or failed."""


def make_engine(name: str, settings: Settings, generation: Generation, options: dict[str, Any]) -> Engine:
    """Return the engine of that file name, not yet loaded."""
    engine: Engine = importlib.import_module(f"benchmark.node.engines.{name}").Engine(settings, generation, options)
    return engine


def make_scenario(name: str) -> Scenario:
    """Return the scenario of that file name."""
    scenario: Scenario = importlib.import_module(f"benchmark.node.scenarios.{name}").Scenario()
    return scenario


def load_dataset(name: str) -> Dataset:
    """Return the dataset of that file name."""
    dataset: Dataset = importlib.import_module(f"benchmark.node.datasets.{name}").load()
    return dataset
