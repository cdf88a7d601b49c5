"""The output of transformers' generation loop: only first tokens and ends leave it, with their times.

The generation thread calls `deliver` and `deliver_batch`, which only read the clock once, look up a request and put it
on a queue. After its first token a request is not streamed any more, so that its other tokens cost the loop nothing. A
thread of our own calls the listeners, and notices when the generation thread has ended.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from benchmark.errors import SetupError
from benchmark.node.interfaces import Answer, Listener, Query, now_ns
from benchmark.words import brief

# How often the listening thread checks that the generation thread is alive, while nothing happens.
WATCH_S = 0.2


@dataclass
class Flight:
    """A query between `submit` and its end."""

    query: Query
    listener: Listener
    input_tokens: int
    streaming: bool = True
    """Whether its first token is still to come."""


@dataclass(frozen=True)
class _Event:
    flight: Flight
    at_ns: int
    token_ids: tuple[int, ...] | None = None
    """The whole answer; None: this is the first token, or an error."""
    error: str | None = None
    first: int | None = None
    """The first token's id, where this is the first token."""


class Router:
    """Replaces the manager's `output_router`; the manager calls `deliver` and the like."""

    def __init__(self, manager: Any) -> None:
        self.broken: str | None = None
        """Why nothing can be answered any more."""
        self._manager = manager
        self._flights: dict[str, Flight] = {}
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._listening = threading.Thread(target=self._listen, name="continuous-listener", daemon=True)

    def start(self) -> None:
        """Start calling the listeners; the generation thread is running by now."""
        self._listening.start()

    def add(self, request_id: str, flight: Flight) -> None:
        """Register the request, before the manager gets it."""
        self._flights[request_id] = flight

    def withdraw(self, request_id: str) -> bool:
        """Forget a request that the manager did not accept; False: its listener has already heard of its failure."""
        return self._flights.pop(request_id, None) is not None

    def withdraw_query(self, query: Query) -> str | None:
        """Forget a query that was abandoned, and return its request; None: it has ended."""
        for request_id, flight in list(self._flights.items()):
            if flight.query is query:
                return request_id if self.withdraw(request_id) else None
        return None

    def close(self, timeout_s: float) -> None:
        """Stop calling listeners; queries still in flight have failed."""
        self._closing.set()
        self._events.put(None)  # wakes the listening thread
        if self._listening.ident is not None and self._listening is not threading.current_thread():
            self._listening.join(timeout_s)

    # Called by the generation thread.

    def deliver(self, output: Any) -> None:
        """Handle one output."""
        self._take(output, now_ns())

    def deliver_batch(self, outputs: list[Any]) -> None:
        """Handle the outputs of one step of the model: they came at the same time."""
        at_ns = now_ns()
        for output in outputs:
            self._take(output, at_ns)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """Handle the failure of a request."""
        if flight := self._flights.pop(state.request_id, None):
            self._events.put(_Event(flight, now_ns(), error=_sentence(error)))

    def _take(self, output: Any, at_ns: int) -> None:
        flight = self._flights.get(output.request_id)
        if flight is None:
            return
        if flight.streaming and output.generated_tokens:
            flight.streaming = False
            self._events.put(_Event(flight, at_ns, first=int(output.generated_tokens[0])))
            # A request that ended with its first token is not active any more.
            state = self._manager.batch_processor.scheduler.active_requests.get(output.request_id)
            if state is not None:
                state.streaming = False
        if not output.is_finished():
            return
        self._flights.pop(output.request_id, None)
        if output.error is None:
            self._events.put(_Event(flight, at_ns, token_ids=tuple(output.generated_tokens)))
        else:
            self._events.put(_Event(flight, at_ns, error=_sentence(output.error)))

    # The listening thread.

    def _listen(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=WATCH_S)
            except queue.Empty:
                if not self._manager.is_running():
                    self._give_up()
                continue
            if event is None:
                break
            self._tell(event)
        self._give_up()
        while not self._events.empty():
            if event := self._events.get():
                self._tell(event)

    def _give_up(self) -> None:
        """Fail all queries in flight: nothing else will."""
        fatal = self._manager.background_thread_status.fatal_error
        ended = "it was closed" if self._closing.is_set() else "its thread ended without an error"
        self.broken = f"The engine stopped: {_sentence(fatal) if fatal is not None else ended + '.'}"
        while self._flights:
            with contextlib.suppress(KeyError):  # another thread took the last one
                _, flight = self._flights.popitem()
                self._events.put(_Event(flight, now_ns(), error=self.broken))

    def _tell(self, event: _Event) -> None:
        flight = event.flight
        try:
            if event.first is not None:
                flight.listener.first_token(flight.query, event.at_ns, event.first)
            elif event.token_ids is not None:
                answer = Answer.of(flight.input_tokens, event.token_ids)
                flight.listener.completed(flight.query, event.at_ns, answer)
            else:
                flight.listener.failed(flight.query, event.error or "")
        except Exception as error:  # the other queries' listeners must still be called
            traceback.print_exc()
            self.broken = f"The engine's listener failed: {type(error).__name__}: {error}"


class Waiting:
    """A listener for the engine's own queries, numbered from 0."""

    def __init__(self, queries: int) -> None:
        self._answers: dict[int, tuple[int, ...]] = {}
        self._left = queries
        self._error: str | None = None
        self._ended = threading.Event()
        self.first = threading.Event()
        """Set when anything has arrived."""

    def answers(self) -> list[tuple[int, ...]]:
        """Wait for all answers; raises SetupError if one failed."""
        self._ended.wait()
        if self._error is not None:
            raise SetupError(f"The engine failed on its first queries: {self._error}")
        return [self._answers[number] for number in sorted(self._answers)]

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        """Note that there was a first token."""
        self.first.set()

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        """Keep the answer."""
        self._answers[query.index] = answer.token_ids
        self._end()

    def failed(self, query: Query, error: str) -> None:
        """Keep the last error."""
        self._error = error
        self.first.set()
        self._end()

    def _end(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._ended.set()


def _sentence(error: Any) -> str:
    """Return an exception, or its text, as the end of a sentence."""
    text = brief(str(error)) or type(error).__name__
    if "out of memory" in text:
        return f"the GPU's memory is full ({text.rstrip('.')}). Lower max_memory_percent or max_batch_tokens."
    return text if text.endswith(".") else f"{text}."
