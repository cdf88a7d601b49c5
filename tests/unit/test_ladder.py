"""What a step sustains, on samples of a queue whose rate is known, and when a ladder of steps ends."""

import heapq
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import metrics
from benchmark.columns import Columns
from benchmark.ladder import Step, sustained, why_end
from benchmark.profiles import Sweep
from benchmark.records import Load, Sample
from tests.unit.queues import TOKENS, S, queue, sample


def step(load: Load, samples: list[Sample]) -> Step:
    columns = Columns.of(samples)
    return Step(load, metrics.compute(columns, len(samples)), sustained(columns))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 8))
def test_a_closed_queue_sustains_what_theory_says(users: int, servers: int, rounds: int) -> None:
    found = sustained(Columns.of(queue(users, servers, [2 * S] * (users * rounds)))).closed
    assert found.qps is not None
    # To within what those in service at the end had waited for their first token: a tenth of a service.
    assert found.qps == pytest.approx(min(users, servers) / 2, rel=0.1 / (rounds - 1) if users > servers else 1e-9)
    assert found.tokens_per_s == pytest.approx(TOKENS * found.qps)


def test_services_that_differ_give_the_rate_of_their_mean() -> None:
    services = [S // 2, 3 * S // 2] * 2000
    found = sustained(Columns.of(queue(16, 4, services))).closed
    assert found.qps == pytest.approx(4, rel=0.02)
    # What all of it took, to the end of the last, would be less: the system empties.
    whole = metrics.compute(Columns.of(queue(16, 16, [S] * 32)), 32)
    assert (whole.qps, sustained(Columns.of(queue(16, 16, [S] * 32))).closed.qps) == (16, 16)


@pytest.mark.parametrize("users", [8, 24])
def test_answers_under_way_at_the_end_count_in_part(users: int) -> None:
    """Four rounds, as a step has at least, of lengths so different that soon nobody is in step with anybody."""
    chance = random.Random(3)
    off = []
    for _ in range(40):
        services = [chance.randrange(S // 2, 3 * S // 2) for _ in range(4 * users)]
        found = sustained(Columns.of(queue(users, 8, services))).closed
        off.append((found.qps or 0) * statistics.fmean(services) / S / 8 - 1)
    assert abs(statistics.fmean(off)) < 0.02


def test_nothing_completed_sustains_nothing() -> None:
    none = sustained(Columns.of([Sample(index=0, prompt_id="p", scheduled_ns=0, issued_ns=0, error="no")]))
    assert (none.closed.qps, none.closed.tokens_per_s, none.scheduled.qps) == (None, None, None)
    one = sustained(Columns.of([sample(0, 0, 0, S)]))
    assert (one.closed.qps, one.closed.tokens_per_s, one.scheduled.qps) == (None, None, None)


def climbed(sweep: Sweep, servers: int) -> list[str]:
    """Return why the ladder ended after each step of a queue, up to the first that ended it."""
    steps: list[Step] = []
    said: list[str] = []
    for users in sweep.concurrency:
        steps.append(step(Load(concurrency=users), queue(users, servers, [S] * (8 * users))))
        said.append(why_end(sweep, steps, "cuda"))
        if said[-1]:
            break
    return said


def test_a_ladder_ends_where_throughput_stops_growing() -> None:
    said = climbed(Sweep(concurrency=(1, 2, 4, 8, 16, 32)), servers=6)
    assert said[:4] == [""] * 4
    assert said[4].startswith("Throughput stopped growing: 16 in flight")
    assert len(said) == 5


def test_a_ladder_that_grows_to_its_end_says_so() -> None:
    assert climbed(Sweep(concurrency=(1, 2, 4)), servers=9) == [
        "",
        "",
        "The ladder's last step, 4 in flight on each GPU.",
    ]


def test_a_limit_ends_a_ladder_only_where_it_is_to() -> None:
    limits: Any = [{"metric": "latency_ms.p99", "at_most": 1500}]
    asked = {"concurrency": [1, 2, 4, 8], "limits": limits, "least_growth": 0}
    assert len(climbed(Sweep.model_validate(asked), servers=2)) == 4
    ended = climbed(Sweep.model_validate({**asked, "stop_at_limits": True}), servers=2)
    assert ended[-1] == "A limit is exceeded at 4 in flight on each GPU: P99 latency at most 1500 ms."


@pytest.mark.parametrize(("share", "grows"), [(0.5, False), (0.95, False), (1.1, True), (2.0, True)])
def test_a_queue_that_grows_without_end_is_seen(share: float, grows: bool) -> None:
    sweep = Sweep(rate=(0.1, share, 3.0))
    servers, count = 4, 400

    def at(rate: float) -> Step:
        free = [0] * servers
        samples = []
        for index in range(count):
            issued = int(index * S / rate)
            began = max(issued, heapq.heappop(free))
            heapq.heappush(free, began + S)
            samples.append(sample(index, issued, began, began + S))
        return step(Load(rate=rate, share=rate / servers), samples)

    last = at(share * servers)
    assert last.qps == pytest.approx(min(share, 1) * servers, rel=0.02), "until the last came, no less"
    said = why_end(sweep, [at(0.4), last], "cuda")
    assert said.startswith("The queue grows without end") is grows, said
    assert bool(said) is grows


def test_a_step_without_an_answer_ends_the_ladder() -> None:
    failed = [Sample(index=0, prompt_id="p", scheduled_ns=0, issued_ns=0, error="no")]
    sweep = Sweep(concurrency=(1, 2))
    ended = why_end(sweep, [step(Load(concurrency=1), failed)], "cpu")
    assert ended == "No query was answered at 1 in flight on each replica."
