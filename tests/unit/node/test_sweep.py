"""A node that has loaded once climbs a ladder, says when it needs no further start, and goes on where it stopped."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.sweep import steps_left
from benchmark.files import read_samples
from benchmark.node.run import RunRequest, run
from benchmark.resolve import resolve
from benchmark.rundir import OVER, of_repeat, read_run
from benchmark.settings import ResolvedSettings
from benchmark.text.node_result import render_node
from tests.unit.node.led import led
from tests.unit.node.test_repeats import place
from tests.unit.node.test_solo import LOADGEN


def asked(sweep: dict[str, Any], **profile: Any) -> ResolvedSettings:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu"})
    fast: dict[str, Any] = {
        "samples": None,
        "scenario_options": {"min_query_count": 4},
        "engine_options": {"ttft_ms": 2, "tpot_ms": 0.1},
        "limits": [],
        "sweep": sweep,
    }
    return ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **fast, **profile}}
    )


def test_each_step_keeps_as_many_in_flight_as_it_says(tmp_path: Path) -> None:
    # Growth is not asked for: how much there is depends on the machine.
    resolved = asked(
        {"concurrency": [1, 2, 4], "limits": [{"metric": "latency_ms.p99", "at_most": 1e6}]},
        engine_options={"ttft_ms": 20, "tpot_ms": 2},
    )
    directory = place(tmp_path, resolved)
    result = run(RunRequest("r1", "jw2", resolved, directory))
    given = [result.load, *(repeat.load for repeat in result.repeats)]
    loads = [load.concurrency for load in given if load]
    assert loads == [1, 2, 4][: len(loads)]
    assert result.sweep_ended
    for number, load in enumerate(loads, start=1):
        samples = read_samples(directory / of_repeat("samples.jsonl", number))
        assert len(samples) == max(4, 4 * (load or 0))
        edges = sorted([(s.issued_ns, 1) for s in samples] + [(s.completed_ns or 0, -1) for s in samples])
        in_flight = [sum(step for _, step in edges[: at + 1]) for at in range(len(edges))]
        assert max(in_flight) <= (load or 0)
    (row,) = aggregate(tmp_path).nodes
    assert row.counted, row.reason
    assert "2 in flight on each replica:" in " ".join(render_node(result).split())


def test_a_ladder_of_rates_is_a_share_of_a_burst(tmp_path: Path) -> None:
    options = {"scenario": "Server", "min_duration_ms": 200, "min_query_count": 5, "burst_query_count": 20}
    engine = {"ttft_ms": 20, "tpot_ms": 1, "slots": 2}
    resolved = asked({"rate": [0.5]}, **{**LOADGEN, "scenario_options": options, "engine_options": engine})
    directory = place(tmp_path, resolved)
    result = run(RunRequest("r1", "jw2", resolved, directory))
    assert result.load is not None
    assert result.load.share == 0.5
    assert result.load.rate is not None
    # Two at once, 35 ms each: a burst cannot reach more.
    assert 0 < result.load.rate <= 0.5 * 2 / 0.035
    assert f"target_qps = {result.load.rate}\n" in (directory / "user.conf").read_text()
    assert result.sweep_ended
    (row,) = aggregate(tmp_path).nodes
    assert row.counted, row.reason
    # A further attempt measures shares of the same rate.
    left = steps_left(tmp_path, read_run(tmp_path), ["jw2"])
    assert left.bursts_qps == {"jw2": pytest.approx(result.load.rate / 0.5)}
    burst_qps = 2 * left.bursts_qps["jw2"]
    again = run(RunRequest("r1", "jw2", resolved, place(tmp_path / "again", resolved), burst_qps=burst_qps))
    assert again.load is not None
    assert again.load.rate == pytest.approx(2 * result.load.rate, rel=1e-3)
    assert "searching" not in again.stages_s


def test_who_needs_no_further_start_says_so(tmp_path: Path) -> None:
    # The second step passes a limit that none can keep.
    sweep = {"concurrency": [1, 2, 3], "limits": [{"metric": "latency_ms.p50", "at_most": 0}], "stop_at_limits": True}
    with led(tmp_path, [("ready", "go")]):
        result = run(RunRequest("r1", "jw2", asked(sweep), tmp_path, wait_s=60))
    assert result.status == "complete"
    assert result.sweep_ended.startswith("A limit is exceeded at 1 in flight")
    assert (tmp_path / "repeat2_ready").read_text() == OVER


def test_a_further_attempt_begins_with_a_later_step(tmp_path: Path) -> None:
    result = run(RunRequest("r1", "jw2", asked({"concurrency": [1, 2, 3]}), tmp_path, first_step=3))
    assert result.load is not None
    assert (result.load.concurrency, result.repeats) == (3, ())
    assert result.sweep_ended == "The ladder's last step, 3 in flight on each replica."
