"""The closed loop: as many queries in flight as there are GPUs, and the next one when one has ended."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from benchmark.node import interfaces
from benchmark.node.interfaces import Answer, Conditions, EngineBroken, Listener, Prompt, Query, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.scenarios.closed_loop import Scenario
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.settings import Settings


class Held(interfaces.Engine):
    """Holds answers back until so many queries are in flight; then the one that came last is answered."""

    def __init__(self, wanted: int, of: int, break_at: int | None = None) -> None:
        super().__init__(Settings(), Generation(), {})
        self.most = 0
        self._wanted, self._to_come, self._break_at = wanted, of, break_at
        self._held: list[tuple[Query, Listener]] = []
        self._lock = threading.Lock()

    def load(self) -> EngineInfo:
        return EngineInfo(name="held")

    def submit(self, query: Query, listener: Listener) -> None:
        if query.index == self._break_at:
            raise EngineBroken("It broke.")
        with self._lock:
            self._held.append((query, listener))
            self.most = max(self.most, len(self._held))
            self._to_come -= 1
            keep = 0 if self._to_come == 0 else self._wanted - 1
            ended, self._held = self._held[keep:][::-1], self._held[:keep]
        threading.Thread(target=self._answer, args=(ended,)).start()

    def _answer(self, ended: list[tuple[Query, Listener]]) -> None:
        for query, listener in ended:
            listener.first_token(query, now_ns(), 1)
            listener.completed(query, now_ns(), Answer.of(1, (1,)))


def loop(
    engine: interfaces.Engine, queries: int | None, replicas: int, given: int | None = None, **options: int
) -> Recorder:
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    workload = Workload((Prompt("p", "text"),), queries, 0)
    Scenario(options).run(workload, recorder, Conditions(Path(), 1.0, replicas=replicas, concurrency=given))
    return recorder


@pytest.mark.parametrize(("queries", "replicas"), [(7, 1), (7, 3), (20, 8), (2, 4)])
def test_each_gpu_has_one_query_in_flight(queries: int, replicas: int) -> None:
    engine = Held(replicas, queries)
    samples = sorted(loop(engine, queries, replicas).samples, key=lambda sample: sample.index)
    assert [sample.index for sample in samples] == list(range(queries))
    assert engine.most == min(queries, replicas)
    ends = {sample.completed_ns for sample in samples}
    # But for the first of each, a query is due when another has ended: waiting is part of its latency.
    assert all(sample.scheduled_ns in ends for sample in samples[replicas:])
    assert len({sample.scheduled_ns for sample in samples[replicas:]}) == max(0, queries - replicas)


@pytest.mark.parametrize(("option", "step", "replicas"), [(4, None, 1), (4, None, 2), (1, 4, 2), (3, 1, 2)])
def test_so_many_are_in_flight_on_each_gpu(option: int, step: int | None, replicas: int) -> None:
    wanted = (step or option) * replicas
    engine = Held(wanted, 20)
    samples = loop(engine, 20, replicas, step, concurrency=option).samples
    assert (engine.most, len(samples)) == (wanted, 20)


def test_without_samples_each_in_flight_has_four_rounds() -> None:
    assert len(loop(Held(8, 32), None, 2, 4, min_query_count=5).samples) == 32
    assert len(loop(Held(2, 9), None, 2, min_query_count=9).samples) == 9


def test_no_query_is_issued_after_the_time_is_over() -> None:
    # The first is held until a second comes, and both end later than half a second after the start.
    class Late(Held):
        def submit(self, query: Query, listener: Listener) -> None:
            threading.Timer(0.6, lambda: super(Late, self).submit(query, listener)).start()

    assert len(loop(Late(2, 2), None, 2, min_query_count=1000, max_duration_ms=500).samples) == 2


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_engine_that_breaks_ends_the_loop(replicas: int) -> None:
    with pytest.raises(EngineBroken, match="It broke"):
        loop(Held(replicas, 9, break_at=4), 9, replicas)
