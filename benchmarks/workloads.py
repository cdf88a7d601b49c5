"""Queries of known lengths, and the times an engine needs for them."""

from __future__ import annotations

import random
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.node.interfaces import Answer, Engine, Prompt, Query, now_ns

VLLM = "~/.local/share/llm-benchmark/vllm"


def place(directory: str) -> str:
    """Return a directory from the command line as an absolute path, as settings need it."""
    return str(Path(directory).expanduser().absolute())


@dataclass(frozen=True)
class Workload:
    """Prompts of random tokens, with `lengths` in tokens; every answer has `output_tokens`."""

    name: str
    lengths: tuple[int, ...]
    output_tokens: int
    vocabulary: int

    def queries(self, first: int = 0) -> list[Query]:
        """Return the queries; another `first` gives other tokens."""
        draw = random.Random(first)  # noqa: S311 # no secret
        return [
            Query(
                first + n, Prompt(f"{self.name}-{n}", "", tuple(draw.choices(range(2, self.vocabulary), k=length))), n
            )
            for n, length in enumerate(self.lengths)
        ]

    def warm_up(self, queries: int) -> list[Query]:
        """Return up to `queries` similar queries, with other tokens."""
        return self.queries(first=1_000_000)[:queries]

    @property
    def input_tokens(self) -> float:
        """The mean length of a prompt in tokens."""
        return statistics.fmean(self.lengths)


def chat(queries: int, vocabulary: int, shrink: int = 1) -> Workload:
    """Workload A: 32 tokens in, 64 out."""
    return Workload("A", (32 // shrink,) * queries, 64 // shrink, vocabulary)


def summaries(queries: int, vocabulary: int, shrink: int = 1) -> Workload:
    """Workload B: prompts as long as CNN/DailyMail's articles (around 780 tokens, at most 2500), 128 out."""
    draw = random.Random(780)  # noqa: S311 # no secret
    lengths = (min(2500, max(60, round(draw.lognormvariate(6.55, 0.47)))) // shrink for _ in range(queries))
    return Workload("B", tuple(lengths), 128 // shrink, vocabulary)


@dataclass
class Measured:
    """The times at which a workload's tokens came."""

    issued_ns: dict[int, int] = field(default_factory=dict)
    first_ns: dict[int, int] = field(default_factory=dict)
    last_ns: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    token_ids: dict[int, tuple[int, ...]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    asked: int = 0

    @property
    def seconds(self) -> float:
        """Seconds from the first issue to the last completion."""
        return (max(self.last_ns.values()) - min(self.issued_ns.values())) / 1e9

    @property
    def tokens_per_s(self) -> float:
        """Output tokens of completed queries per second."""
        return sum(self.tokens.values()) / self.seconds

    @property
    def ttft_ms(self) -> float:
        """The median time to the first token of completed queries."""
        return statistics.median(self.first_ns[n] - self.issued_ns[n] for n in self.last_ns) / 1e6

    @property
    def tpot_ms(self) -> float:
        """The median time per output token after the first, of completed queries."""
        return (
            statistics.median(
                (self.last_ns[n] - self.first_ns[n]) / max(1, count - 1) for n, count in self.tokens.items()
            )
            / 1e6
        )


class _Clock:
    """A listener that only records times."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self.changed = threading.Condition()

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        self.measured.first_ns[query.index] = at_ns

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        with self.changed:
            self.measured.last_ns[query.index] = at_ns
            self.measured.tokens[query.index] = answer.output_tokens
            self.measured.token_ids[query.index] = tuple(answer.token_ids)
            self.changed.notify_all()

    def failed(self, query: Query, error: str) -> None:
        with self.changed:
            self.measured.errors.append(error)
            self.changed.notify_all()


def run(engine: Engine, queries: list[Query], until: float, at_once: bool) -> Measured:
    """Issue all queries at once, or each after the previous one; stop at `until` (time.monotonic)."""
    measured = Measured(asked=len(queries))
    clock = _Clock(measured)

    def wait_for(ended: int) -> bool:
        with clock.changed:
            left = max(0.0, until - time.monotonic())
            return clock.changed.wait_for(lambda: len(measured.last_ns) + len(measured.errors) >= ended, left)

    for number, query in enumerate(queries, 1):
        if time.monotonic() > until:
            break
        measured.issued_ns[query.index] = now_ns()
        engine.submit(query, clock)
        if not at_once and not wait_for(number):
            break
    wait_for(len(measured.issued_ns))
    if not measured.last_ns:
        raise RuntimeError(measured.errors[0] if measured.errors else "no query ended within the time limit")
    return measured
