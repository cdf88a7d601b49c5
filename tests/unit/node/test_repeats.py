"""Several measurements with the model loaded once: by hand, with LoadGen, and told by files as a controller does."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.errors import RunError
from benchmark.files import read_record, read_samples, write_record
from benchmark.node.run import RunRequest, run
from benchmark.records import NodeResult, RunRecord
from benchmark.resolve import resolve
from benchmark.rundir import NODES, RUN_FILE, of_repeat
from benchmark.settings import ResolvedSettings
from benchmark.text.node_result import render_node
from tests.unit.node.led import led
from tests.unit.node.test_solo import LOADGEN

REPEATS = 3


def asked(**profile: Any) -> ResolvedSettings:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_repeats": REPEATS})
    fast = {"samples": 6, "engine_options": {"ttft_ms": 2, "tpot_ms": 0.1}}
    return ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **fast, **profile}}
    )


def place(tmp_path: Path, resolved: ResolvedSettings) -> Path:
    """Make the run's directory of one node; return the node's in it."""
    directory = tmp_path / NODES / "jw2"
    directory.mkdir(parents=True)
    record = RunRecord(run_id="r1", created_at="now", command="", versions={}, nodes={"jw2": resolved})
    write_record(tmp_path / RUN_FILE, record)
    return directory


@pytest.mark.parametrize("profile", [{}, LOADGEN], ids=["closed loop", "loadgen"])
def test_each_repeat_is_whole_and_verified_from_its_own_samples(tmp_path: Path, profile: dict[str, Any]) -> None:
    resolved = asked(**profile)
    directory = place(tmp_path, resolved)
    result = run(RunRequest("r1", "jw2", resolved, directory))
    (row,) = aggregate(tmp_path).nodes
    assert row.counted, row.reason
    assert [repeat.number for repeat in result.repeats] == [2, 3]
    assert {len(one.values) for one in row.spread} == {REPEATS}
    windows = [result.window, *(repeat.window for repeat in result.repeats)]
    for before, after in pairwise(windows):
        assert before is not None
        assert after is not None
        assert before.ended_unix_ns <= after.started_unix_ns
    for repeat in result.repeats:
        samples = read_samples(directory / of_repeat("samples.jsonl", repeat.number))
        assert len(samples) == repeat.metrics.queries.completed
        assert repeat.verdict is not None
        assert (repeat.loadgen is None) is not bool(profile)
        assert (directory / of_repeat("mlperf_log_detail.txt", repeat.number)).exists() is bool(profile)
        assert (directory / of_repeat("telemetry.jsonl", repeat.number)).is_file()
    assert "3 with the model loaded once; the figures below are of repeat" in " ".join(render_node(result).split())


def test_each_repeat_begins_when_all_are_told(tmp_path: Path) -> None:
    starts = [(of_repeat("ready", number), of_repeat("go", number)) for number in range(1, REPEATS + 1)]
    with led(tmp_path, starts) as reported:
        result = run(RunRequest("r1", "jw2", asked(), tmp_path, wait_s=60))
    windows = [result.window, *(repeat.window for repeat in result.repeats)]
    assert [window.asked_unix_ns for window in windows if window] == list(reported.values())
    # By a wall clock that was converted once, to within the reading of two clocks.
    assert all(window and window.late_ms is not None and window.late_ms > -1 for window in windows)


def test_a_node_without_a_later_repeat_keeps_what_it_measured(tmp_path: Path) -> None:
    # As when the controller goes away: nobody says when the second repeat starts.
    gives_up = r"no start time came within 2 s: .* Earlier measurements are kept"
    with led(tmp_path, [("ready", "go")]), pytest.raises(RunError, match=gives_up):
        run(RunRequest("r1", "jw2", asked(), tmp_path, wait_s=2))
    (path,) = tmp_path.glob("mlperf_datacenter_*.json")
    result = read_record(path, NodeResult)
    assert (result.status, result.stage, result.repeats) == ("failed", "ready", ())
    assert result.metrics is not None
    assert result.metrics.queries.completed == 6
    assert len(read_samples(tmp_path / "samples.jsonl")) == 6
