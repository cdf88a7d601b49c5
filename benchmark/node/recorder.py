"""Stamp, submit and record queries: the only place where a sample is made."""

from __future__ import annotations

import threading
from collections.abc import Callable

from benchmark.files import SampleWriter
from benchmark.node.interfaces import Engine, Query, now_ns
from benchmark.records import Sample


class Recorder:
    """Issuer for the scenario, listener for the engine. Safe to be called from several threads.

    Each sample is with the writer (none: a warm-up) before the query counts as done. All times are relative to
    `started_ns`, the reading of `now_ns` at which the measuring window began. `on_sample` is told each sample and how
    many there are.
    """

    def __init__(
        self,
        engine: Engine,
        writer: SampleWriter | None,
        started_ns: int,
        on_sample: Callable[[Sample, int], None],
    ) -> None:
        self.samples: list[Sample] = []
        self._engine = engine
        self._writer = writer
        self._started_ns = started_ns
        self._on_sample = on_sample
        self._lock = threading.Lock()
        self._in_flight: dict[int, _InFlight] = {}
        self._broken: OSError | None = None

    def issue(self, query: Query, scheduled_ns: int) -> None:
        """Give the query to the engine and remember when; an engine that raises has failed the query."""
        issued_ns = now_ns()
        with self._lock:
            self._in_flight[query.index] = _InFlight(scheduled_ns, issued_ns)
        try:
            self._engine.submit(query, self)
        except Exception as error:  # the engine is the system under test: whatever it raises is a failed query
            self.failed(query, f"{type(error).__name__}: {error}")

    def wait(self, query: Query) -> int:
        """Return the time at which the query completed or failed; raise the OSError that kept it from being kept."""
        flight = self._in_flight[query.index]
        flight.done.wait()
        with self._lock:
            del self._in_flight[query.index]
        if self._broken is not None:
            raise self._broken
        return flight.ended_ns

    def first_token(self, query: Query, at_ns: int) -> None:
        """Remember when the first token was there."""
        self._in_flight[query.index].first_token_ns = at_ns

    def completed(self, query: Query, at_ns: int, input_tokens: int, token_ids: tuple[int, ...]) -> None:
        """Record the answer. No token at all is a failure: there is nothing whose time could be measured."""
        if not token_ids:
            self.failed(query, "The engine generated no token.")
            return
        self._record(query, at_ns, at_ns, input_tokens, token_ids, None)

    def failed(self, query: Query, error: str) -> None:
        """Record that there is no answer."""
        self._record(query, now_ns(), None, 0, (), error[:4000] or "The engine gave no reason.")

    def _record(
        self,
        query: Query,
        ended_ns: int,
        completed_ns: int | None,
        input_tokens: int,
        token_ids: tuple[int, ...],
        error: str | None,
    ) -> None:
        flight = self._in_flight[query.index]
        sample = Sample(
            index=query.index,
            prompt_id=query.prompt.id,
            scheduled_ns=flight.scheduled_ns - self._started_ns,
            issued_ns=flight.issued_ns - self._started_ns,
            first_token_ns=None if flight.first_token_ns is None else flight.first_token_ns - self._started_ns,
            completed_ns=None if completed_ns is None else completed_ns - self._started_ns,
            input_tokens=input_tokens,
            token_ids=token_ids,
            error=error,
        )
        with self._lock:
            try:
                if self._writer is not None:
                    self._writer.append(sample)
            except OSError as broken:
                self._broken = broken
            self.samples.append(sample)
            self._on_sample(sample, len(self.samples))
        flight.ended_ns = ended_ns
        flight.done.set()


class _InFlight:
    def __init__(self, scheduled_ns: int, issued_ns: int) -> None:
        self.scheduled_ns = scheduled_ns
        self.issued_ns = issued_ns
        self.first_token_ns: int | None = None
        self.ended_ns = 0
        self.done = threading.Event()
