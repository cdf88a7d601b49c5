"""What is handed to the generation loop and what leaves it: answers, errors, and what is given up."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from benchmark.node.interfaces import EngineBroken
from tests.unit.node.continuous.asked import ENDLESS, QUERIES, Make, ask
from tests.unit.node.heard import Heard


def test_only_first_tokens_and_ends_leave_the_generation_loop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = make()
    taken: list[str] = []
    take = engine._router._take

    def count(output: Any, at_ns: int) -> None:
        taken.append(output.request_id)
        take(output, at_ns)

    monkeypatch.setattr(engine._router, "_take", count)
    ask(engine, QUERIES)
    assert len(taken) == 2 * len(QUERIES)


def test_an_error_of_one_query_is_its_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = make()
    scheduler = engine._manager.batch_processor.scheduler
    add = scheduler.add_waiting_request

    def refuse_second(state: Any) -> None:
        if state.request_id == "1":
            raise ValueError("no room")
        add(state)

    monkeypatch.setattr(scheduler, "add_waiting_request", refuse_second)
    heard = ask(engine, QUERIES[:3])
    assert heard.errors == {1: "no room."}
    assert set(heard.tokens) == {0, 2}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."), "the GPU's memory is full"),
        (
            RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported elsewhere.\n"),
            "CUDA error: device-side assert triggered CUDA kernel errors might be reported elsewhere.",
        ),
        (SystemExit(), "its thread ended without an error"),  # not even transformers catches that
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_generation_thread_fails_every_query_in_flight(make: Make, error: BaseException, said: str) -> None:
    engine, _ = make(ENDLESS)
    heard = Heard()
    for query in QUERIES[:3]:
        engine.submit(query, heard)
    heard.wait_for_first_tokens(3)

    def die() -> None:
        raise error

    engine._manager._generation_step = die
    heard.wait(3)
    assert all(said in text for text in heard.errors.values())
    engine._manager._generation_thread.join()
    with pytest.raises(EngineBroken):
        engine.submit(QUERIES[3], heard)


def test_a_query_that_nobody_waits_for_gives_its_pages_back(make: Make) -> None:
    engine, _ = make(ENDLESS)
    cache, heard = engine._manager.batch_processor.cache, Heard()
    free = cache.compute_free_capacity()
    for query in QUERIES[:2]:
        engine.submit(query, heard)
    heard.wait_for_first_tokens(2)
    assert cache.compute_free_capacity() < free
    for query in QUERIES[:3]:
        engine.cancel(query)
    deadline = time.monotonic() + 60
    while cache.compute_free_capacity() < free:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not heard.tokens | heard.errors


def test_closing_fails_what_is_in_flight_and_leaves_no_thread(make: Make) -> None:
    before = threading.active_count()
    engine, _ = make(ENDLESS)
    assert engine._manager._generation_thread.daemon
    heard = Heard()
    engine.submit(QUERIES[0], heard)
    heard.wait_for_first_tokens(1)
    engine.close()
    heard.wait(1)
    assert threading.active_count() == before
    engine.close()


def test_what_is_in_flight_fails_where_stopping_fails_too(make: Make) -> None:
    engine, _ = make(ENDLESS)
    heard, manager = Heard(), engine._manager
    stop = manager.stop

    def fail(*given: Any, **more: Any) -> None:
        stop(*given, **more)
        raise RuntimeError("CUDA error: device-side assert triggered")

    manager.stop = fail
    engine.submit(QUERIES[0], heard)
    heard.wait_for_first_tokens(1)
    with pytest.raises(RuntimeError, match="device-side assert"):
        engine.close()
    heard.wait(1)
    assert set(heard.errors) == {0}
    assert not engine._router._listening.is_alive()
