"""The three small interfaces of a run: scenario x engine x dataset. They know these types, but not each other.

A new engine, scenario or dataset is one new file in `engines/`, `scenarios/` or `datasets/`, with a class `Engine`, a
class `Scenario` or a function `load`; a profile refers to it by its file name.
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

# The only clock of a run. Wall-clock time is read once, when the measuring window begins.
now_ns = time.monotonic_ns


class EngineBroken(RunError):
    """The engine as a whole cannot answer anything any more: the run ends."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a dataset.

    `token_ids` are given to the model unchanged; without them, `text` is one user message, formatted with the model's
    chat template.
    """

    id: str
    text: str
    token_ids: tuple[int, ...] | None = None
    reference: str | None = None
    """A reference answer; None: the dataset has no references."""
    output_tokens: int | None = None
    """Exact length of the answer in tokens; None: as in the profile's generation settings."""
    due_s: float | None = None
    """Arrival time in a trace, in seconds since its first query; None: the dataset is no trace."""
    follows: int | None = None
    """The number of the previous prompt in its conversation: that prompt, its answer and these tokens then form one
    prompt. None: the first prompt of a conversation, or no conversation."""
    think_s: float = 0.0
    """How long the user thinks after the previous answer, in seconds."""


@dataclass(frozen=True)
class Dataset:
    """The prompts, and the SHA-256 of what they were read or made from."""

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str


@dataclass(frozen=True)
class Query:
    """One prompt to answer. Each query has its own `seed`, so that its answer does not depend on the order."""

    index: int
    prompt: Prompt
    seed: int
    greedy: bool = False
    """No sampling, whatever the profile says."""

    def bounds(self, generation: Generation) -> tuple[int, int]:
        """Return the minimum and the maximum number of tokens of the answer."""
        exactly = self.prompt.output_tokens
        return (generation.min_new_tokens, generation.max_new_tokens) if exactly is None else (exactly, exactly)


@dataclass(frozen=True)
class Answer:
    """An engine's answer to one query. Tokens are counted from ids, or by the server; never from chunks."""

    input_tokens: int
    output_tokens: int
    token_ids: tuple[int, ...] = ()
    """Empty if a server reports only their number."""
    text: str | None = None
    """The server's text, if it sends text; needed for accuracy without ids."""
    pieces: int | None = None
    """Number of pieces, separate in time, in which the output arrived; None: no stream was read."""
    first_piece_tokens: int | None = None
    """Number of token ids in the first piece; None: it had no ids."""
    usage_tokens: int | None = None
    """Output tokens in the server's usage, if they differ from `output_tokens`."""
    cached_tokens: int | None = None
    """Prompt tokens from a prefix cache, for a server from its usage; None: not reported."""
    whole_ns: int | None = None
    """When the answer was known to be complete, if later than the last token; None: with it."""
    model: str = ""
    """The model that answered, as reported; empty: not reported."""

    @classmethod
    def of(cls, input_tokens: int, token_ids: tuple[int, ...]) -> Answer:
        """Return the answer of an engine that knows the token ids and uses no prefix cache."""
        return cls(input_tokens, len(token_ids), token_ids, cached_tokens=0)


class Listener(Protocol):
    """What an engine reports about a query. Times are the engine's own readings of `now_ns`.

    Methods may be called from any thread; for each query `first_token` at most once, then one of the others exactly
    once.
    """

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """Report the first output token; `token_id` is None if a server does not report it."""

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        """Report that the last output token has arrived."""

    def failed(self, query: Query, error: str) -> None:
        """Report that there is no answer."""


@dataclass(frozen=True)
class Demands:
    """What a run requires of its engine, in addition to the profile's `generation`."""

    greedy: bool = False
    """Whether some queries must be answered without sampling."""
    token_ids: bool = False
    """Whether answers need token ids."""
    texts: bool = False
    """Whether some prompts are text."""
    ids: bool = False
    """Whether some prompts are token ids."""
    longest: int = 0
    """Tokens of the longest prompt with token ids, including the earlier turns of a conversation."""
    lengths: bool = False
    """Whether some prompts set the length of their answer."""
    highest_id: int = 0
    """The highest token id in the prompts."""

    @property
    def needs_template(self) -> bool:
        """Whether prompts need the model's chat template; yes if nothing is known about them."""
        return self.texts or not self.ids


class Engine(ABC):
    """An engine, which generates tokens: the system under test."""

    replicable: ClassVar[bool] = False
    """Whether a node with several GPUs runs one per GPU, each in its own process; otherwise one per node."""

    together: ClassVar[bool] = False
    """Whether its GPUs answer each query together: a closed loop then keeps as many in flight as on one GPU."""

    counts_gpus: ClassVar[bool] = False
    """Whether `benchmark_replicas` tells a single engine how many GPUs to use."""

    has_server: ClassVar[bool] = False
    """Whether it is a client of servers, which others can use too."""

    directory = Path()
    """The run's directory, where it may write logs; set before `load`."""

    secrets = Secrets()
    """Secrets for servers, which are never stored; set before `load`."""

    demands = Demands()
    """What the run requires; set before `load`, which raises an error for what the engine cannot do."""

    group: GroupPart | None = None
    """The nodes that serve one copy of the model with this one; set before `load`; None: this node alone."""

    def __init__(self, settings: Settings, generation: Generation, options: dict[str, Any]) -> None:
        self.settings = settings
        self.generation = generation
        self.options = options

    @abstractmethod
    def load(self) -> EngineInfo:
        """Get ready to answer and return what was loaded.

        Raises SetupError if the node is not fit for it, Unfit (a SetupError) if another engine may serve the model,
        InputError for unsupported options, generation settings or demands. All of these as early as possible: before
        anything is loaded, unless they depend on it.
        """

    @abstractmethod
    def submit(self, query: Query, listener: Listener) -> None:
        """Answer a query. May return before the answer is complete; the listener is called in any case.

        An exception fails the query; EngineBroken ends the run. An engine that breaks fails the queries in flight.
        """

    def cancel(self, query: Query) -> None:  # noqa: B027 # optional: the answer is then ignored
        """Drop a query whose answer is not needed any more; its listener need not be called."""

    def check(self) -> None:  # noqa: B027 # optional: most engines raise in submit
        """Raise EngineBroken if the engine cannot answer any more; called while other programs send the queries."""

    def parts(self) -> int:
        """Return over how many processes one copy of the model is split. Raises InputError for options."""
        return 1

    def server_of(self, query: Query) -> int | None:
        """Return which of several servers got the query, once, after the query has ended; None: there is only one."""
        return None

    def begin_window(self) -> None:  # noqa: B027 # most engines have no servers
        """Note the servers' counters; called before a measurement, with no query in flight."""

    def end_window(self) -> Serving | None:
        """Return what the servers did since `begin_window`; None: there are no servers. Never raises."""
        return None

    def close(self) -> None:  # noqa: B027 # most engines hold nothing beyond the process
        """Release what `load` acquired."""


class Issuer(Protocol):
    """What a scenario issues its queries through: it takes times, submits and records."""

    def issue(self, query: Query, scheduled_ns: int | None, watcher: Watcher | None = None) -> None:
        """Submit the query to the engine; `scheduled_ns` is its scheduled time (None: known later).

        Raises EngineBroken.
        """

    def wait(self, query: Query) -> int:
        """Wait until the query has completed or failed; return the time at which that was certain."""

    def answer(self, query: Query) -> tuple[int, Answer | None]:
        """Do as `wait`, and return the answer as well; None: the query failed."""

    def check(self) -> None:
        """Raise any error that ends the run, for a scenario that waits elsewhere."""


class Watcher(Protocol):
    """What a scenario is told about its queries, after it was recorded; from any thread."""

    def first_token(self, query: Query, token_id: int | None) -> None:
        """Handle the first output token."""

    def ended(self, query: Query, answer: Answer | None) -> None:
        """Handle the end of the query: its answer, or None."""


@dataclass(frozen=True)
class Workload:
    """The queries of a scenario: `samples` of them, unless the scenario decides how many."""

    prompts: tuple[Prompt, ...]
    samples: int | None
    seed: int

    def query(self, index: int, prompt: int | None = None) -> Query:
        """Return query number `index`, with the prompt of that number; by default prompts are used in turn."""
        number = index % len(self.prompts) if prompt is None else prompt
        return Query(index=index, prompt=self.prompts[number], seed=self.seed + index)


@dataclass(frozen=True)
class Conditions:
    """The conditions under which a scenario runs.

    For `accuracy` every prompt is answered once; for an `audit` some are, as a compliance test requires. A `probe` is a
    short performance run, and a `burst` issues some queries at once: both serve the peak search, which only LoadGen's
    scenarios support.
    """

    directory: Path
    """For the scenario's own logs, with names that begin with `prefix`."""
    target_qps: float
    """Queries per second for the whole node."""
    purpose: Purpose = "performance"
    prefix: str = ""
    expected_ms: float | None = None
    """Latency of a single query in the warm-up; None: not known."""
    mlperf_round: str = DEFAULT_ROUND
    """The round whose seeds LoadGen uses."""
    begins: Callable[..., None] = field(default=lambda *_: None, compare=False)
    """Called before the first query, with what is known about the run: its minimum duration in seconds, its number of
    queries (0: not known), and its maximum duration (infinite: not known)."""
    replicas: int = 1
    """Number of GPUs (on the CPU: processes) that answer."""
    concurrency: int | None = None
    """Queries in flight on each of them, for a closed loop; None: as in its options."""


@dataclass(frozen=True)
class Outcome:
    """The result of a scenario, beyond the samples."""

    loadgen: LoadGenResult | None = None
    scheduled_ns: dict[int, int] = field(default_factory=dict)
    """Query index -> its scheduled time, by `now_ns`, for queries that were issued without it."""
    arrivals_sha256: str = ""
    """Hash of the arrival times from a seed or a trace, in proportion to the rate; empty: there are none."""


class Scenario(ABC):
    """A scenario: it decides when queries are issued."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Raise InputError for unknown options."""
        check_none(options, "The profile's scenario")

    @abstractmethod
    def run(self, workload: Workload, issuer: Issuer, conditions: Conditions) -> Outcome:
        """Issue the queries and return when all have completed or failed."""
