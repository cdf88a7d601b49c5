"""The three small interfaces of a run: scenario x engine x dataset. They know these types and not each other.

A new engine, scenario or dataset is one new file in `engines/`, `scenarios/` or `datasets/`, which holds a class
`Engine`, a class `Scenario` or a function `load`; a profile names it by its file name.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from benchmark.errors import RunError
from benchmark.loadgen_options import Purpose
from benchmark.node.options import check_none
from benchmark.profiles import Generation
from benchmark.records import EngineInfo, GroupPart, LoadGenResult, Serving
from benchmark.secret_settings import Secrets
from benchmark.settings import Settings
from benchmark.settings.measurement import DEFAULT_ROUND

# The one clock of a run. Wall-clock time is read once, when the measuring window begins.
now_ns = time.monotonic_ns


class EngineBroken(RunError):
    """The engine as a whole can answer nothing any more: the run ends."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a dataset.

    With `token_ids` these are given to the model as they are; without, `text` is a conversation of one user message,
    and the model's chat template is put around it.
    """

    id: str
    text: str
    token_ids: tuple[int, ...] | None = None
    reference: str | None = None
    """What a good answer says; None: the dataset has no references."""
    output_tokens: int | None = None
    """Tokens that its answer has, exactly; None: as many as the profile's generation gives."""
    due_s: float | None = None
    """When a trace has it arrive, in seconds since its first query; None: the dataset is no trace."""
    follows: int | None = None
    """The number of the prompt before it in its conversation: that prompt, its answer and these tokens are one prompt
    then. None: a conversation begins, or there are none."""
    think_s: float = 0.0
    """How long the user thinks after the answer before, in seconds."""


@dataclass(frozen=True)
class Dataset:
    """The prompts, and the SHA-256 of what they were read or made from."""

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str


@dataclass(frozen=True)
class Query:
    """One prompt to answer. `seed` belongs to the query, so that its answer does not depend on the order."""

    index: int
    prompt: Prompt
    seed: int
    greedy: bool = False
    """Without sampling, whatever the profile says."""

    def bounds(self, generation: Generation) -> tuple[int, int]:
        """Return how many tokens the answer has at least and at most."""
        exactly = self.prompt.output_tokens
        return (generation.min_new_tokens, generation.max_new_tokens) if exactly is None else (exactly, exactly)


@dataclass(frozen=True)
class Answer:
    """What an engine generated for one query. Tokens are counted from ids, or by the server; never from chunks."""

    input_tokens: int
    output_tokens: int
    token_ids: tuple[int, ...] = ()
    """Empty where a server reports only how many there were."""
    text: str | None = None
    """What a server sent, where it sends text; needed for accuracy where there are no ids."""
    pieces: int | None = None
    """In how many pieces the output arrived, apart in time; None: no stream was read."""
    first_piece_tokens: int | None = None
    """How many token ids the first of them had; None: it had no ids."""
    usage_tokens: int | None = None
    """Output tokens by the server's usage, where these are not `output_tokens`."""
    cached_tokens: int | None = None
    """Prompt tokens from a prefix cache, of a server's by its usage; None: not reported."""
    whole_ns: int | None = None
    """When it was certain that this is all, if that was after the last token; None: with it."""
    model: str = ""
    """Which model says that it answered; empty: nobody says."""

    @classmethod
    def of(cls, input_tokens: int, token_ids: tuple[int, ...]) -> Answer:
        """Return the answer of an engine that knows the token ids, and computes each prompt as if it were its first."""
        return cls(input_tokens, len(token_ids), token_ids, cached_tokens=0)


class Listener(Protocol):
    """What an engine reports about a query. The times are the engine's own reading of `now_ns`.

    May be called from any thread; for each query `first_token` comes at most once, then exactly one of the others.
    """

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """The first output token is there; `token_id` is None where a server does not report it."""

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        """The last output token is there."""

    def failed(self, query: Query, error: str) -> None:
        """There is no answer."""


@dataclass(frozen=True)
class Demands:
    """What a run asks of its engine beside answers in the profile's `generation`."""

    greedy: bool = False
    """Whether queries come that are to be answered without sampling."""
    token_ids: bool = False
    """Whether answers count only with the ids of their tokens."""
    texts: bool = False
    """Whether prompts come that are a conversation."""
    ids: bool = False
    """Whether prompts come that are token ids."""
    longest: int = 0
    """Tokens of the longest prompt of those, with what a conversation had before."""
    lengths: bool = False
    """Whether prompts come that say how long their answer is."""
    highest_id: int = 0
    """The highest id in them."""

    @property
    def needs_template(self) -> bool:
        """Whether prompts are to go through the model's chat template; yes where nothing is known of them."""
        return self.texts or not self.ids


class Engine(ABC):
    """What generates tokens: the system under test."""

    replicable: ClassVar[bool] = False
    """Whether a node with several GPUs runs one in a process of its own on each; else there is one on a node."""

    together: ClassVar[bool] = False
    """Whether its GPUs answer one query together: a closed loop then keeps so many in flight as on one GPU."""

    counts_gpus: ClassVar[bool] = False
    """Whether `benchmark_replicas` tells the one that is there how many GPUs it uses."""

    has_server: ClassVar[bool] = False
    """Whether it is the client of servers, which others can ask too."""

    directory = Path()
    """Where its own logs may go: the run's directory, set before `load`."""

    secrets = Secrets()
    """What is shown to servers and kept nowhere, set before `load`."""

    demands = Demands()
    """What the run asks of it, set before `load`, which refuses what the engine cannot do."""

    group: GroupPart | None = None
    """With which nodes it serves one copy of the model, set before `load`; None: the node is one by itself."""

    def __init__(self, settings: Settings, generation: Generation, options: dict[str, Any]) -> None:
        self.settings = settings
        self.generation = generation
        self.options = options

    @abstractmethod
    def load(self) -> EngineInfo:
        """Get ready to answer and say what was loaded.

        Raises SetupError where the node is not fit for it, Unfit (one of those) where another engine may serve the
        model, InputError for options, generation settings or demands that the engine does not have. All of that as
        early as it can be known: before anything is loaded, if it does not hang on what is loaded.
        """

    @abstractmethod
    def submit(self, query: Query, listener: Listener) -> None:
        """Answer a query. May return before the answer is there; the listener hears of it either way.

        What is raised fails the query; EngineBroken ends the run. An engine that breaks fails the queries in flight.
        """

    def cancel(self, query: Query) -> None:  # noqa: B027 # an engine that cannot leave it out answers nobody
        """Leave a query out whose answer nobody waits for any more; its listener need not hear of it."""

    def check(self) -> None:  # noqa: B027 # most engines say so when they are asked
        """Raise EngineBroken where nothing can be answered any more; looked at while others ask the engine."""

    def parts(self) -> int:
        """Return how many processes one copy of the model is to be spread over. Raises InputError for options."""
        return 1

    def server_of(self, query: Query) -> int | None:
        """Return which of several servers was asked, once, when the query has ended; None: there are not several."""
        return None

    def begin_window(self) -> None:  # noqa: B027 # most engines serve nobody
        """Note where the servers' counters stand; called before a measurement begins, with no query in flight."""

    def end_window(self) -> Serving | None:
        """Return what the servers did since `begin_window`; None: there are no servers. Never raises."""
        return None

    def close(self) -> None:  # noqa: B027 # most engines hold nothing that the process's end does not free
        """Release what `load` took."""


class Issuer(Protocol):
    """What a scenario issues its queries through: it stamps, submits and records."""

    def issue(self, query: Query, scheduled_ns: int | None, watcher: Watcher | None = None) -> None:
        """Give the query to the engine; `scheduled_ns` is when the scenario wanted that (None: known later).

        Raises EngineBroken.
        """

    def wait(self, query: Query) -> int:
        """Return when the query has completed or failed, with the time at which that was certain."""

    def answer(self, query: Query) -> tuple[int, Answer | None]:
        """Return as `wait` does, and the answer; None: the query failed."""

    def check(self) -> None:
        """Raise what keeps the run from going on, for a scenario that waits elsewhere."""


class Watcher(Protocol):
    """What a scenario hears of its queries, after it was recorded; from any thread."""

    def first_token(self, query: Query, token_id: int | None) -> None:
        """The first output token is there."""

    def ended(self, query: Query, answer: Answer | None) -> None:
        """The answer is there, or there is none."""


@dataclass(frozen=True)
class Workload:
    """What a scenario draws its queries from: `samples` of them, where it does not decide that itself."""

    prompts: tuple[Prompt, ...]
    samples: int | None
    seed: int

    def query(self, index: int, prompt: int | None = None) -> Query:
        """Return query number `index`, on the prompt of that number; without one, prompts are taken in turn."""
        number = index % len(self.prompts) if prompt is None else prompt
        return Query(index=index, prompt=self.prompts[number], seed=self.seed + index)


@dataclass(frozen=True)
class Conditions:
    """Under what a scenario runs.

    For `accuracy` every prompt is answered once; for an `audit` some are, in the form that a compliance test asks for.
    A `probe` is a short performance run, a `burst` issues some queries at
    once: both serve the peak search, which only LoadGen's scenarios have.
    """

    directory: Path
    """Takes the scenario's own logs, under names that begin with `prefix`."""
    target_qps: float
    """Queries per second for the whole node."""
    purpose: Purpose = "performance"
    prefix: str = ""
    expected_ms: float | None = None
    """What one query alone takes, as the warm-up saw it; None: not known."""
    mlperf_round: str = DEFAULT_ROUND
    """Whose seeds LoadGen takes."""
    begins: Callable[..., None] = field(default=lambda *_: None, compare=False)
    """Called before the first query, for those who watch, with what is known of the run: how long it takes at least, in
    seconds; how many queries it has (0: not known); how long it takes at most (infinite: not known)."""
    replicas: int = 1
    """GPUs (or, on the CPU, processes) that answer."""
    concurrency: int | None = None
    """Queries in flight on each of them, for a scenario that keeps so many; None: as many as its options say."""


@dataclass(frozen=True)
class Outcome:
    """How a scenario ended, beyond the samples."""

    loadgen: LoadGenResult | None = None
    scheduled_ns: dict[int, int] = field(default_factory=dict)
    """Query index -> when it was scheduled, by `now_ns`, of queries that were issued without saying so."""
    arrivals_sha256: str = ""
    """Of the times that a seed or a trace gave, in proportion to the rate; empty: there are no such."""


class Scenario(ABC):
    """Who issues queries and when."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for options that the scenario does not have."""
        check_none(options, "The profile's scenario")

    @abstractmethod
    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue the queries and return when all have completed or failed."""
