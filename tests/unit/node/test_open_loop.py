"""Who issues queries by a schedule, and who converses: with the engine that only waits."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import InputError, RunError
from benchmark.node import interfaces
from benchmark.node.engines import simulated
from benchmark.node.interfaces import Answer, Conditions, Listener, Prompt, Query, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import make_scenario
from benchmark.node.scenarios.conversations import planned
from benchmark.node.scenarios.schedule import distances
from benchmark.profiles import Generation
from benchmark.records import EngineInfo, Sample
from benchmark.schedule_options import Options
from benchmark.settings import Settings

WAITS = {"ttft_ms": 1, "tpot_ms": 0}


def run(
    name: str, options: dict[str, Any], prompts: Sequence[Prompt], samples: int | None = None, rate: float = 1000.0,
    engine: interfaces.Engine | None = None, replicas: int = 1, **waits: Any,
) -> list[Sample]:  # fmt: skip
    made = engine or simulated.Engine(Settings(), Generation(max_new_tokens=4), {**WAITS, **waits})
    made.load()
    recorder = Recorder(made, None, now_ns(), lambda sample, done: None)
    try:
        conditions = Conditions(Path(), rate, replicas=replicas)
        make_scenario(name, options).run(Workload(tuple(prompts), samples, 0), recorder, conditions)
    finally:
        made.close()
    return sorted(recorder.samples, key=lambda sample: sample.index)


def due_ms(samples: Sequence[Sample]) -> list[float]:
    """Return when each was due after the first, in milliseconds."""
    due = [sample.scheduled_ns for sample in samples if sample.scheduled_ns is not None]
    assert len(due) == len(samples)
    return [(at - due[0]) / 1e6 for at in due]


PROMPTS = [Prompt(f"p{n}", "", (n, n)) for n in range(4)]


def test_a_constant_schedule_waits_for_no_answer() -> None:
    samples = run("schedule", {"arrivals": "constant"}, PROMPTS, 10, rate=500, ttft_ms=60)
    assert due_ms(samples) == pytest.approx([2 * n for n in range(10)], abs=1e-5)
    assert [sample.prompt_id for sample in samples] == ["p0", "p1", "p2", "p3", "p0", "p1", "p2", "p3", "p0", "p1"]
    # All came before the first was answered, and none before it was due.
    assert all(sample.scheduled_ns is not None and sample.issued_ns >= sample.scheduled_ns for sample in samples)
    first = samples[0].completed_ns
    assert first is not None
    assert all(sample.scheduled_ns is not None and sample.scheduled_ns < first for sample in samples)


def test_the_schedule_is_kept_where_the_client_lags() -> None:
    """An engine that holds up who asks it: the time of a query counts from when it was due all the same."""

    class Slow(interfaces.Engine):
        def load(self) -> EngineInfo:
            return EngineInfo(name="slow")

        def submit(self, query: Query, listener: Listener) -> None:
            time.sleep(0.005)
            listener.first_token(query, now_ns(), 1)
            listener.completed(query, now_ns(), Answer.of(1, (1,)))

    engine = Slow(Settings(), Generation(), {})
    samples = run("schedule", {"arrivals": "constant"}, PROMPTS, 8, rate=1000, engine=engine)
    assert due_ms(samples) == pytest.approx(range(8), abs=1e-5)
    last = samples[-1]
    assert last.scheduled_ns is not None
    assert last.issued_ns - last.scheduled_ns >= 7 * 4_000_000


@pytest.mark.parametrize(
    ("options", "cv"),
    [
        ({"arrivals": "constant"}, 0.0),
        ({"arrivals": "poisson"}, 1.0),
        ({"arrivals": "gamma"}, 1.0),
        ({"arrivals": "gamma", "burstiness": 0.25}, 2.0),
        ({"arrivals": "gamma", "burstiness": 4}, 0.5),
    ],
)
def test_arrivals_have_their_rate_and_burstiness(options: dict[str, Any], cv: float) -> None:
    times = list(islice(distances(Options.model_validate(options), 50), 20_001))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0
    assert statistics.fmean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(cv, rel=0.06, abs=1e-6)


@given(st.sampled_from(["poisson", "gamma"]), st.integers(0, 2**40), st.floats(0.01, 1e4))
def test_two_nodes_with_one_seed_have_one_schedule(arrivals: Any, seed: int, rate: float) -> None:
    options = Options(arrivals=arrivals, seed=seed)
    once, again, slower = (list(islice(distances(options, each), 50)) for each in (rate, rate, rate / 4))
    assert once == again == sorted(once)
    assert slower == pytest.approx([4 * at for at in once])
    assert all(math.isfinite(at) for at in once)


TRACED = [Prompt(f"t{n}", "", (n,), output_tokens=n + 1, due_s=at) for n, at in enumerate((0.0, 0.0, 0.02, 0.05))]


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"arrivals": "poisson"}, [0.0, 0.391315, 0.554833, 1.607329, 1.682523, 2.450139]),
        ({"arrivals": "gamma", "burstiness": 0.25}, [0.0, 0.062544, 1.083605, 1.552612, 1.552676, 1.552688]),
        ({"arrivals": "gamma", "burstiness": 4}, [0.0, 0.757098, 2.022675, 3.078521, 3.427199, 3.720483]),
    ],
)
def test_the_same_seed_gives_the_same_arrivals_for_ever(options: dict[str, Any], known: list[float]) -> None:
    """Computed once: nodes with another Python must not be asked at other times."""
    times = islice(distances(Options.model_validate({**options, "seed": 7}), 1), 6)
    assert [round(at, 6) for at in times] == known


def test_arrivals_have_a_hash_that_the_rate_leaves_alone() -> None:
    def arrivals(rate: float, prompts: Sequence[Prompt] = PROMPTS, **options: Any) -> str:
        made = simulated.Engine(Settings(), Generation(max_new_tokens=4), WAITS)
        made.load()
        recorder = Recorder(made, None, now_ns(), lambda sample, done: None)
        workload = Workload(tuple(prompts), None, 0)
        outcome = make_scenario("schedule", options).run(workload, recorder, Conditions(Path(), rate))
        recorder.close()
        made.close()
        return outcome.arrivals_sha256

    assert arrivals(1000, seed=7) == arrivals(5000, seed=7)
    traced = [arrivals(1, TRACED, arrivals="trace", time_scale=scale) for scale in (1, 0.5)]
    assert len({arrivals(1000, seed=7), arrivals(1000, seed=8), *traced}) == 4


def test_a_trace_is_replayed_at_its_own_times() -> None:
    samples = run("schedule", {"arrivals": "trace", "time_scale": 0.5}, TRACED)
    assert due_ms(samples) == pytest.approx([0, 0, 10, 25], abs=1e-5)
    assert [sample.output_tokens for sample in samples] == [1, 2, 3, 4]
    assert [sample.asked_tokens for sample in samples] == [1, 2, 3, 4]


@pytest.mark.parametrize(("prompts", "samples"), [(PROMPTS, None), (TRACED, 5)])
def test_a_dataset_without_times_is_no_trace(prompts: list[Prompt], samples: int | None) -> None:
    with pytest.raises(InputError, match="at a trace's own times"):
        run("schedule", {"arrivals": "trace"}, prompts, samples)


@pytest.mark.parametrize(
    "options", [{"arrivals": "weibull"}, {"arrivals": "poisson", "burstiness": 2}, {"time_scale": 2}, {"rate": 3}]
)
def test_a_schedule_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="scenario schedule"):
        make_scenario("schedule", options)


def talk(turns: int, first: int, think_s: float = 0.0) -> list[Prompt]:
    return [
        Prompt(
            f"c{first}-{turn}",
            "",
            (100 * first + turn,),
            output_tokens=turn + 2,
            follows=first + turn - 1 if turn else None,
            think_s=think_s if turn else 0.0,
        )
        for turn in range(turns)
    ]


class Listening(simulated.Engine):
    """Keeps what it was asked."""

    def __init__(self, **waits: Any) -> None:
        super().__init__(Settings(), Generation(max_new_tokens=9), {**WAITS, **waits})
        self.asked: dict[int, tuple[int, ...]] = {}

    def submit(self, query: Query, listener: Listener) -> None:
        self.asked[query.index] = query.prompt.token_ids or ()
        super().submit(query, listener)


class Gathering(Listening):
    """Answers nobody until so many have asked."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._held: list[tuple[Query, Listener]] = []

    def submit(self, query: Query, listener: Listener) -> None:
        self._held.append((query, listener))
        if len(self._held) == self._count:
            held, self._held = self._held, []
            for one, its in held:
                super().submit(one, its)


def test_what_was_answered_is_part_of_the_next_prompt() -> None:
    engine = Listening()
    samples = run("conversations", {}, [*talk(3, 0, 0.01), *talk(2, 3)], engine=engine)
    assert [sample.index for sample in samples] == [0, 1, 2, 3, 4]
    said = {sample.index: sample.token_ids for sample in samples}
    assert engine.asked[0] == (0,)
    assert engine.asked[1] == (0, *said[0], 1)
    assert engine.asked[2] == (0, *said[0], 1, *said[1], 2)
    assert engine.asked[3] == (300,)  # another conversation: nothing was said before
    assert [sample.input_tokens for sample in samples] == [1, 4, 8, 1, 4]
    # The next question is due when the answer is there and the user has thought.
    first, second = samples[:2]
    assert first.completed_ns is not None
    assert second.scheduled_ns is not None
    assert second.scheduled_ns - first.completed_ns >= 10_000_000
    assert second.issued_ns >= second.scheduled_ns


def test_users_converse_at_the_same_time() -> None:
    engine = Gathering(6)
    prompts = [prompt for first in range(0, 12, 2) for prompt in talk(2, first)]
    samples = run("conversations", {"users": 3}, prompts, engine=engine, replicas=2)
    assert len(samples) == 12  # which were answered six at a time
    for first in range(0, 12, 2):
        assert engine.asked[first + 1] == (*engine.asked[first], *samples[first].token_ids, 100 * first + 1)


def test_after_a_failure_a_conversation_has_no_further_turn() -> None:
    samples = run("conversations", {}, [*talk(3, 0), *talk(2, 3)], engine=Listening(fail_indexes=(1,)))
    assert [(sample.index, sample.error is None) for sample in samples] == [(0, True), (1, False), (3, True), (4, True)]


def test_without_token_ids_there_is_no_conversation() -> None:
    class Silent(simulated.Engine):
        def submit(self, query: Query, listener: Listener) -> None:
            listener.first_token(query, now_ns())
            listener.completed(query, now_ns(), Answer(3, query.prompt.output_tokens or 1, text="words"))

    engine = Silent(Settings(), Generation(max_new_tokens=9), WAITS)
    with pytest.raises(RunError, match="reports no token ids"):
        run("conversations", {}, talk(2, 0), engine=engine)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 40))
def test_conversations_are_as_many_queries_as_asked(turns: list[int], queries: int) -> None:
    prompts: list[Prompt] = []
    for each in turns:
        prompts += talk(each, len(prompts))
    found = list(planned(prompts, queries))
    assert [index for one in found for index, _ in one] == list(range(queries))
    assert [number for one in found for _, number in one] == [n % len(prompts) for n in range(queries)]
    assert all(prompts[one[0][1]].follows is None for one in found)


def test_an_answer_of_another_length_is_no_answer() -> None:
    class Short(simulated.Engine):
        def submit(self, query: Query, listener: Listener) -> None:
            listener.first_token(query, now_ns(), 1)
            listener.completed(query, now_ns(), Answer.of(1, tuple(range(5))))

    engine = Short(Settings(), Generation(max_new_tokens=9), WAITS)
    (sample,) = run("schedule", {}, [Prompt("p", "", (1,), output_tokens=3)], engine=engine)
    assert sample.error == "The answer has 5 tokens; exactly 3 were requested."
