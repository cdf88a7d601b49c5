"""An engine that only waits: for trying out orchestration and arithmetic. Its results say SIMULATED.

To make one node slower than its peers, set SIMULATED_SLOWDOWN in its environment (1.05: 5 % slower), which is recorded
in the engine's details; it is no setting, as nodes with different settings would not be peers. SIMULATED_SEED makes the
natural spread repeatable.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, Field

from benchmark.locks import take
from benchmark.node import interfaces, options
from benchmark.node.interfaces import Answer, EngineBroken, Listener, Query, now_ns
from benchmark.records import EngineInfo
from benchmark.simulated_options import Options

SLOWDOWN = "SIMULATED_SLOWDOWN"
SEED = "SIMULATED_SEED"


class _Node(BaseModel):
    slowdown: float = Field(gt=0)


class Engine(interfaces.Engine):
    """Answers after known delays, with token ids that depend only on the seed. One thread does the timing."""

    def load(self) -> EngineInfo:
        """Wait `load_s`. Raises InputError for unknown options."""
        self.timing = options.check(Options, self.options, "engine_options of the simulated engine")
        self._slowdown = options.check(_Node, {"slowdown": os.environ.get(SLOWDOWN, "1")}, SLOWDOWN).slowdown
        self._chance = random.Random(os.environ.get(SEED))  # noqa: S311 # random, not secret
        time.sleep(self.timing.load_s)
        self._timer = Timer()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Query, Listener]] = deque()
        self._busy = 0
        details = {**self.timing.model_dump(mode="json"), "slowdown": self._slowdown}
        return EngineInfo(name="simulated", simulated=True, details=details)

    def submit(self, query: Query, listener: Listener) -> None:
        """Begin the answer, or let the query wait for a slot."""
        if query.index == self.timing.break_at:
            raise EngineBroken("The simulated engine is set to break.")
        if query.index in self.timing.fail_indexes:
            listener.failed(query, "The simulated engine is set to fail this query.")
            return
        if self.timing.shared:
            with Path(self.timing.shared).open("a") as file:
                take(file.fileno(), wait=True)
                time.sleep(self.timing.shared_ms / 1000)
        with self._lock:
            if self.timing.slots and self._busy >= self.timing.slots:
                self._waiting.append((query, listener))
                return
            self._busy += 1
        self._begin(query, listener, now_ns())

    def close(self) -> None:
        """Stop answering."""
        if hasattr(self, "_timer"):
            self._timer.stop()

    def _begin(self, query: Query, listener: Listener, at_ns: int) -> None:
        _, tokens = query.bounds(self.generation)
        slower = self._slowdown * self._chance.lognormvariate(0, self.timing.spread)
        first_ns = at_ns + int(self.timing.ttft_ms * slower * 1e6)
        generating_ns = int(self.timing.tpot_ms * slower * 1e6) * (tokens - 1)
        token_ids = tuple((query.seed + position) % 1000 for position in range(tokens))
        answer = Answer.of(len(query.prompt.token_ids or query.prompt.text.split()), token_ids)

        def first() -> None:
            _work(self.timing.work_ms)
            there_ns = now_ns()
            listener.first_token(query, there_ns, token_ids[0])
            self._timer.at((there_ns if self.timing.work_ms else first_ns) + generating_ns, last)

        def last() -> None:
            ended_ns = now_ns()
            listener.completed(query, ended_ns, answer)
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    return
                following = self._waiting.popleft()
            self._begin(*following, ended_ns)

        self._timer.at(first_ns, first)


def _work(work_ms: float) -> None:
    until = time.thread_time() + work_ms / 1000
    while time.thread_time() < until:
        pass


class Timer:
    """Calls functions at times of `now_ns`, in its own thread."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        threading.Thread(target=self._run, name="simulated", daemon=True).start()

    def at(self, at_ns: int, call: Callable[[], None]) -> None:
        """Call the function at that time, or immediately if it has passed."""
        with self._changed:
            heapq.heappush(self._due, (at_ns, next(self._order), call))
            self._changed.notify()

    def stop(self) -> None:
        """Stop calling functions."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._due or self._due[0][0] > now_ns()):
                    self._changed.wait((self._due[0][0] - now_ns()) / 1e9 if self._due else None)
                if self._stopped:
                    return
                _, _, call = heapq.heappop(self._due)
            call()
