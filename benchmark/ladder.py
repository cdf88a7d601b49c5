"""A ladder of loads: what a step sustains, and when the ladder ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.columns import ABSENT, Columns, Floats
from benchmark.curves import keeps
from benchmark.loads import at_load, limit_words
from benchmark.metrics import NS_PER_S
from benchmark.profiles import Sweep
from benchmark.records import Load, Metrics
from benchmark.verdict import value_of

# A queue counts as growing without end if answering the rest takes more than this share of the time of issue.
BACKLOG = 0.05


@dataclass(frozen=True)
class Rate:
    """What was answered in a period; of an answer in progress at its end, the share of its tokens."""

    seconds: float = 0.0
    queries: float = 0
    tokens: float = 0

    @property
    def qps(self) -> float | None:
        """Queries per second; None: undefined."""
        return self.queries / self.seconds if self.queries and self.seconds > 0 else None

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens of these per second; None: undefined."""
        return self.tokens / self.seconds if self.queries and self.seconds > 0 else None


@dataclass(frozen=True)
class Sustained:
    """What was answered until the last query's issue: rates exclude the time in which the system empties."""

    closed: Rate = Rate()
    """From the first query's issue: a closed loop has all its queries in flight at once. Includes the answered part of
    the queries in flight at the end: with different lengths, each is somewhere within its answer."""
    scheduled: Rate = Rate()
    """From the first completion: until then a schedule fills the system. Whole answers: those in progress at the end
    make up for those in progress at the beginning."""
    seconds: float = 0.0
    """From the first query's issue to the last one's."""
    backlog_s: float = 0.0
    """From the last query's issue to the last completion."""


def sustained(samples: Columns) -> Sustained:
    """Return what the system sustained while queries were issued.

    A closed loop has a constant number in flight from its first issue to its last: each query after the first few
    replaces one that completed. A schedule has as many in flight at its end as shortly after its beginning.
    """
    done = samples.completed
    if not done.any():
        return Sustained()
    first, last = int(samples.issued_ns.min()), int(samples.issued_ns.max())
    ended = samples.completed_ns[done]

    def rate(begin: int, answered: Floats) -> Rate:
        tokens = math.fsum((samples.output_tokens * answered).tolist())
        return Rate(max(0, last - begin) / NS_PER_S, math.fsum(answered.tolist()), tokens)

    within, began = done & (samples.completed_ns <= last), int(ended.min())
    return Sustained(
        rate(first, np.maximum(within, _answered(samples, last))),
        rate(began, (within & (samples.completed_ns > began)).astype(np.float64)),
        (last - first) / NS_PER_S,
        max(0, int(ended.max()) - last) / NS_PER_S,
    )


def _answered(samples: Columns, at_ns: int) -> Floats:
    """Return the share of each answer's tokens that had arrived by then; 0 if it failed, or its first is unknown."""
    seen = samples.completed & (samples.first_token_ns != ABSENT)
    lasted = np.where(seen, samples.completed_ns - samples.first_token_ns, 0)
    there = np.where(seen, at_ns - samples.first_token_ns, 0)
    return np.clip(np.divide(there, lasted, out=np.zeros(len(samples)), where=lasted > 0), 0.0, 1.0)


@dataclass(frozen=True)
class Step:
    """One measured step of a node."""

    load: Load
    metrics: Metrics
    sustained: Sustained

    @property
    def qps(self) -> float | None:
        """Queries per second under the load."""
        return self._rate.qps

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens per second under the load."""
        return self._rate.tokens_per_s

    @property
    def _rate(self) -> Rate:
        return self.sustained.closed if self.load.rate is None else self.sustained.scheduled


def loads_of(sweep: Sweep, burst: float) -> list[Load]:
    """Return the load of each step; `burst`: the queries per second that rates are shares of."""
    if sweep.concurrency:
        return [Load(concurrency=step) for step in sweep.concurrency]
    # Four digits, for readability.
    return [Load(rate=float(f"{share * burst:.4g}"), share=share) for share in sweep.rate]


def why_end(sweep: Sweep, steps: Sequence[Step], device: str) -> str:
    """Return, in a sentence, why the ladder ends with the last of these steps; empty: it continues.

    `device`: what the node computes on.
    """
    last = steps[-1]
    load = at_load(sweep, last.load.step, device)
    if not last.metrics.queries.completed:
        return f"No query was answered at {load}."
    if last.load.rate is not None and _grows(steps):
        return (
            f"The queue grows without end: at {last.load.rate:.3g} queries/s, answering those still waiting when the "
            f"last one arrived took {last.sustained.backlog_s:.3g} s."
        )
    passed = [limit for limit in sweep.limits if not keeps(limit, value_of(last.metrics, limit.metric))]
    if sweep.stop_at_limits and passed:
        return f"A limit is exceeded at {load}: {', '.join(map(limit_words, passed))}."
    if last.load.rate is None and not grew(sweep, [step.tokens_per_s for step in steps]):
        return (
            f"Throughput stopped growing: {load} give less than {sweep.least_growth:.0%} "
            "more tokens/s than the best step before."
        )
    if last.load.step == sweep.steps[-1]:
        return f"The ladder's last step, {load}."
    return ""


def _grows(steps: Sequence[Step]) -> bool:
    """Return whether more queries arrived than were answered in the last step."""
    alone, last = steps[0].metrics.latency_ms, steps[-1].sustained
    # Queries in flight at the end must be answered in any case.
    unloaded_s = alone.p50 / 1000 if alone else 0.0
    return last.backlog_s - unloaded_s > BACKLOG * last.seconds


def grew(sweep: Sweep, values: Sequence[float | None]) -> bool:
    """Return whether the last value is enough above the highest before it; True if one is undefined."""
    known = [value for value in values[:-1] if value is not None]
    last = values[-1]
    return last is None or not known or last >= max(known) * (1 + sweep.least_growth)
