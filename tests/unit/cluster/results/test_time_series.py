"""What happened when: from samples and ticks to bins."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import gather
from benchmark.cluster.results.time_series import MOST_BINS, time_series_of
from benchmark.columns import Columns
from benchmark.metrics import NS_PER_S
from benchmark.records import GpuTick, Sample, Tick
from tests.unit.building import MS, add_node, asked, closed_loop, failed, make_run, sample, sample_lists


def test_one_query_at_a_time() -> None:
    series = time_series_of(Columns.of(closed_loop([1800.0] * 20)))
    assert series is not None
    assert (series.width_ns, series.bins, series.end_ns) == (512 * MS, 71, 36000 * MS)
    assert series.in_flight.high[3] == 1
    # 63 tokens in 1750 ms after the first one; a bin within the answer has nothing else.
    assert series.tokens_per_s(1) == pytest.approx(63 / 1.75)


def test_queries_that_overlap() -> None:
    series = time_series_of(Columns.of([sample(0, 100, 10, 1, 0), sample(1, 100, 10, 1, 50)]))
    assert series is not None
    assert (series.bins, series.width_ns) == (75, 2 * MS)
    assert [series.in_flight.high[at] for at in (10, 30, 60)] == [1, 2, 1]
    assert series.in_flight.low[25] == 1  # the second query came a tenth of a millisecond after the bin began
    assert series.in_flight.mean(25) == pytest.approx(1.95)


def test_what_never_completed_has_no_course() -> None:
    assert time_series_of(Columns.of(())) is None
    assert time_series_of(Columns.of([failed(0)])) is None


@given(sample_lists())
def test_nothing_is_lost_in_bins_of_any_width(samples: list[Sample]) -> None:
    series = time_series_of(Columns.of(samples))
    done = [s for s in samples if s.completed_ns]
    if series is None:
        assert not done
        return
    assert series.bins <= MOST_BINS
    tokens = sum(s.output_tokens for s in done)
    busy_ns = sum((s.completed_ns or 0) - s.issued_ns for s in done)
    for each in (series, series.merged(series.width_ns * 2), series.merged(series.width_ns * 8)):
        assert (each.bins - 1) * each.width_ns < series.end_ns <= each.bins * each.width_ns
        assert math.fsum(each.tokens) == pytest.approx(tokens)
        assert math.fsum(each.in_flight.total) == pytest.approx(busy_ns, abs=1)
        assert max(each.in_flight.high) <= len(done)
        inside = sum(
            each.tokens_per_s(n) * min(each.width_ns, each.end_ns - n * each.width_ns) for n in range(each.bins)
        )
        assert inside / NS_PER_S == pytest.approx(tokens)


def walked(samples: list[Sample], width_ns: int, bins: int) -> tuple[list[float], list[list[float]]]:
    """Return the tokens of each bin, and lowest, highest, sum and weight of what was in flight: an event at a time."""
    done = [(s.issued_ns, s.first_token_ns, s.completed_ns, s.output_tokens) for s in samples if s.completed_ns]
    came, rate = [0.0] * (bins + 1), [0.0] * (bins + 2)

    def change(at_ns: int, tokens_per_ns: float) -> None:
        number = at_ns // width_ns
        came[number] += tokens_per_ns * ((number + 1) * width_ns - at_ns)
        rate[number + 1] += tokens_per_ns

    for _, first_ns, last_ns, tokens in done:
        if first_ns is None or not tokens:
            continue
        if first_ns == last_ns:
            came[min(last_ns // width_ns, bins - 1)] += tokens
            continue
        came[first_ns // width_ns] += 1
        each = (tokens - 1) / (last_ns - first_ns)
        change(first_ns, each)
        change(last_ns, -each)
    now = 0.0
    for number in range(bins):
        now += rate[number]
        came[number] = max(0.0, came[number] + now * width_ns)
    seen = [[math.inf] * bins, [-math.inf] * bins, [0.0] * bins, [0.0] * bins]
    level, since_ns = 0, 0
    for at_ns, step in sorted([(issued, 1) for issued, *_ in done] + [(last, -1) for _, _, last, _ in done]):
        while since_ns < at_ns:
            number = since_ns // width_ns
            until_ns = min(at_ns, (number + 1) * width_ns)
            seen[0][number] = min(seen[0][number], level)
            seen[1][number] = max(seen[1][number], level)
            seen[2][number] += level * (until_ns - since_ns)
            seen[3][number] += until_ns - since_ns
            since_ns = until_ns
        level += step
    return came[:bins], seen


@st.composite
def crowded(draw: st.DrawFn) -> list[Sample]:
    """Samples whose times often coincide, with each other and with the ends of bins."""
    moments = st.one_of(st.integers(0, 300).map(lambda at: at * MS), st.integers(0, 10**12))
    made = []
    for index in range(draw(st.integers(0, 20))):
        issued, first, last = sorted(draw(st.tuples(moments, moments, moments)))
        reported = draw(st.booleans())
        made.append(
            Sample(
                index=index,
                prompt_id="p",
                issued_ns=issued,
                first_token_ns=first if reported else None,
                completed_ns=last,
                output_tokens=draw(st.integers(0, 300)) if reported else 0,
            )
        )
    return made


@given(st.one_of(sample_lists(), crowded()))
def test_every_digit_is_that_of_walking_through_the_events(samples: list[Sample]) -> None:
    series = time_series_of(Columns.of(samples))
    if series is None:
        assert not any(s.completed_ns for s in samples)
        return
    tokens, seen = walked(samples, series.width_ns, series.bins)
    assert list(series.tokens) == tokens
    in_flight = series.in_flight
    assert [list(each) for each in (in_flight.low, in_flight.high, in_flight.total, in_flight.weight)] == seen


@given(st.lists(st.tuples(st.integers(-10, 200), st.floats(0, 700)), max_size=40))
def test_an_envelope_holds_every_tick_of_the_window(reported: list[tuple[int, float]]) -> None:
    ticks = [Tick(t_ns=at * MS, gpus=(GpuTick(index=0, power_w=watts),)) for at, watts in reported]
    series = time_series_of(Columns.of([sample(0, 100)]), ticks)
    assert series is not None
    inside = [watts for at, watts in reported if 0 <= at < 100]
    if not inside:
        assert not series.watched
        return
    power = series.watched["power_w"]
    assert (min(power.low), max(power.high)) == (min(inside), max(inside))
    assert math.fsum(power.total) / math.fsum(power.weight) == pytest.approx(math.fsum(inside) / len(inside))


def test_telemetry_is_read_beside_the_samples(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    for node in ("jw2", "jw3"):
        place = add_node(tmp_path, node, asked(3), [1700.0] * 3)
        ticks = [Tick(t_ns=at * 100 * MS, gpus=(GpuTick(index=0, temperature_c=60 + at),)) for at in range(10)]
        lines = "".join(tick.model_dump_json() + "\n" for tick in ticks)
        (place / "telemetry.jsonl").write_text(lines + '{"t_ns": 12')  # cut short by a kill
    (tmp_path / "nodes" / "jw3" / "telemetry.jsonl").write_text("hot\n" + lines)
    gathered = gather(tmp_path)
    fine, damaged = gathered.nodes
    assert fine.time_series is not None
    assert max(fine.time_series.watched["temperature_c"].high) == 69
    # What was watched is in no total: the node still counts, and its file is named.
    assert damaged.counted
    assert damaged.time_series is not None
    assert not damaged.time_series.watched
    (problem,) = gathered.result.problems
    assert problem.startswith("nodes/jw3/telemetry.jsonl, line 1: not a tick of telemetry")
