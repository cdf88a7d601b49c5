"""Time, submit and record queries: samples are created only here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from benchmark.errors import in_words
from benchmark.files import SampleWriter
from benchmark.node.interfaces import Answer, Engine, EngineBroken, Query, Watcher, now_ns
from benchmark.records import Sample


class Recorder:
    """Issuer for the scenario, listener for the engine. Thread-safe.

    Each sample is passed to the writer (None: a warm-up) before the query counts as done. All times are relative to
    `started_ns`, the reading of `now_ns` at which the measuring window began. `on_sample` is called with each sample
    and the number of samples.
    """

    def __init__(
        self,
        engine: Engine,
        writer: SampleWriter | None,
        started_ns: int,
        on_sample: Callable[[Sample, int], None],
    ) -> None:
        self.samples: list[Sample] = []
        self.issued = 0
        self.unanswered: Counter[int | None] = Counter()
        """Queries in flight when the recorder was closed, by server; None: there is only one."""
        self._engine = engine
        self._writer = writer
        self._started_ns = started_ns
        self._on_sample = on_sample
        self._lock = threading.Lock()
        self._in_flight: dict[int, _InFlight] = {}
        self._ended: dict[int, _InFlight] = {}
        self._broken: OSError | None = None
        self._closed = False

    def issue(self, query: Query, scheduled_ns: int | None, watcher: Watcher | None = None) -> None:
        """Submit the query to the engine and record the time; if the engine raises, the query has failed."""
        issued_ns = now_ns()
        with self._lock:
            self._in_flight[query.index] = _InFlight(query, scheduled_ns, issued_ns, watcher)
            self.issued = max(self.issued, query.index + 1)
        try:
            self._engine.submit(query, self)
        except EngineBroken as error:
            self.failed(query, str(error))
            raise
        except Exception as error:  # the engine is the system under test: any exception is a failed query
            self.failed(query, in_words(error))

    def wait(self, query: Query) -> int:
        """Return the time at which the query was known to have completed or failed; raises as `answer` does."""
        return self.answer(query)[0]

    def answer(self, query: Query) -> tuple[int, Answer | None]:
        """Return the time at which the query was known to have completed or failed, and its answer.

        Raises the OSError that kept its sample from being written.
        """
        with self._lock:
            flight = self._in_flight.get(query.index) or self._ended[query.index]
        flight.done.wait()
        with self._lock:
            self._ended.pop(query.index, None)
        self.check()
        return flight.ended_ns, flight.answer

    def check(self) -> None:
        """Raise the OSError that kept a sample from being written: the run cannot continue."""
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        """Stop recording: later events belong to a run that was abandoned."""
        with self._lock:
            self._closed = True
            self.unanswered = Counter(self._engine.server_of(flight.query) for flight in self._in_flight.values())

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """Record the time of the first token."""
        flight = self._in_flight[query.index]
        flight.first_token_ns = at_ns
        if flight.watcher is not None:
            flight.watcher.first_token(query, token_id)
            flight.first_reported_ns = now_ns()

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        """Record the answer. An answer without tokens counts as failed: it has no times to measure.

        So does one with too many tokens: it is different work from what was requested, with an unknown end.
        """
        exactly, (_, most) = query.prompt.output_tokens, query.bounds(self._engine.generation)
        if not answer.output_tokens:
            self.failed(query, "The engine generated no token.")
            return
        if answer.output_tokens > most:
            asked = "at most" if exactly is None else "exactly"
            self.failed(query, f"The answer has {answer.output_tokens} tokens; {asked} {most} were requested.")
            return
        self._record(query, at_ns, answer, None)

    def failed(self, query: Query, error: str) -> None:
        """Record that there is no answer."""
        self._record(query, now_ns(), None, error[:4000] or "The engine gave no reason.")

    def amend(self, scheduled_ns: Mapping[int, int]) -> list[Sample]:
        """Set the scheduled times (by `now_ns`) of queries where they were not known; return all samples."""

        def scheduled(sample: Sample) -> Sample:
            if sample.index not in scheduled_ns:
                return sample
            # Two clocks are compared here: a query cannot be scheduled after it was issued.
            at = max(0, min(scheduled_ns[sample.index] - self._started_ns, sample.issued_ns))
            return sample.model_copy(update={"scheduled_ns": at})

        self.samples = [scheduled(sample) for sample in self.samples]
        return self.samples

    def _record(self, query: Query, ended_ns: int, answer: Answer | None, error: str | None) -> None:
        flight = self._in_flight[query.index]
        # Before the file is written: LoadGen takes the time itself, when it is called.
        if flight.watcher is not None:
            flight.watcher.ended(query, answer)
        reported_ns = now_ns() if flight.watcher is not None and answer is not None else None
        sample = Sample(
            index=query.index,
            prompt_id=query.prompt.id,
            scheduled_ns=self._relative(flight.scheduled_ns),
            issued_ns=flight.issued_ns - self._started_ns,
            first_token_ns=self._relative(flight.first_token_ns),
            completed_ns=None if answer is None else ended_ns - self._started_ns,
            first_reported_ns=self._relative(flight.first_reported_ns),
            reported_ns=self._relative(reported_ns),
            input_tokens=0 if answer is None else answer.input_tokens,
            output_tokens=0 if answer is None else answer.output_tokens,
            pieces=None if answer is None else answer.pieces,
            first_piece_tokens=None if answer is None else answer.first_piece_tokens,
            usage_tokens=None if answer is None else answer.usage_tokens,
            asked_tokens=query.prompt.output_tokens,
            cached_tokens=None if answer is None else answer.cached_tokens,
            server=self._engine.server_of(query),
            token_ids=() if answer is None else answer.token_ids,
            error=error,
        )
        with self._lock:
            if self._closed:
                return
            try:
                if self._writer is not None:
                    self._writer.append(sample)
            except OSError as broken:
                self._broken = broken
            self.samples.append(sample)
            self._on_sample(sample, len(self.samples))
            del self._in_flight[query.index]
            if flight.watcher is None:
                self._ended[query.index] = flight
        # A waiting thread could not know of the end earlier.
        flight.answer = answer
        flight.ended_ns = ended_ns if answer is None or answer.whole_ns is None else max(ended_ns, answer.whole_ns)
        flight.done.set()

    def _relative(self, at_ns: int | None) -> int | None:
        return None if at_ns is None else at_ns - self._started_ns


class _InFlight:
    """A query that a thread or a watcher waits for."""

    def __init__(self, query: Query, scheduled_ns: int | None, issued_ns: int, watcher: Watcher | None) -> None:
        self.query = query
        self.scheduled_ns = scheduled_ns
        self.issued_ns = issued_ns
        self.watcher = watcher
        self.first_token_ns: int | None = None
        self.first_reported_ns: int | None = None
        self.ended_ns = 0
        self.answer: Answer | None = None
        self.done = threading.Event()
