"""A turn alone before all measure together, in one process: told by files, as the controller does."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.errors import RunError
from benchmark.files import read_record, read_samples, rewrite_samples, write_record
from benchmark.node.run import RunRequest, run
from benchmark.records import NodeResult, RunRecord
from benchmark.resolve import resolve
from benchmark.rundir import NODES, RUN_FILE
from benchmark.settings import ResolvedSettings
from tests.unit.node.led import led

# What the run says, and what it is then told.
TURN = (("ready", "turn"), ("turn_over", "go"))
LOADGEN: dict[str, Any] = {
    "scenario": "loadgen",
    "scenario_options": {"scenario": "SingleStream", "min_duration_ms": 300, "min_query_count": 20},
    "samples": None,
    "limits": [],
}


def asked(**profile: Any) -> ResolvedSettings:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_solo_first": True})
    fast = {"samples": 6, "engine_options": {"ttft_ms": 2, "tpot_ms": 0.1}}
    return ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **fast, **profile}}
    )


def measured(directory: Path, resolved: ResolvedSettings, node: str = "jw2") -> NodeResult:
    with led(directory, TURN) as reported:
        result = run(RunRequest("r1", node, resolved, directory, wait_s=60, solo=True))
    assert list(reported) == ["turn", "go"]
    assert result.window is not None
    assert result.window.asked_unix_ns == reported["go"], "nothing is measured together before all are told"
    return result


def believed(tmp_path: Path, resolved: ResolvedSettings) -> Path:
    """Make a run of one node that measured alone first; return the node's directory."""
    directory = tmp_path / NODES / "jw2"
    directory.mkdir(parents=True)
    record = RunRecord(run_id="r1", created_at="now", command="", versions={}, nodes={"jw2": resolved})
    write_record(tmp_path / RUN_FILE, record)
    measured(directory, resolved)
    return directory


@pytest.mark.parametrize("profile", [{}, LOADGEN], ids=["closed loop", "loadgen"])
def test_both_measurements_are_whole_and_verified(tmp_path: Path, profile: dict[str, Any]) -> None:
    directory = believed(tmp_path, asked(**profile))
    (row,) = aggregate(tmp_path).nodes
    assert row.counted, row.reason
    assert [one.metric for one in row.solo] == ["qps", "tokens_per_s", "latency_ms.p99", "ttft_ms.p99"]
    for one in row.solo:
        assert one.change == pytest.approx(one.together / one.alone - 1)
    (path,) = directory.glob("mlperf_datacenter_*.json")
    result = read_record(path, NodeResult)
    assert result.solo is not None
    assert result.window is not None
    assert result.solo.window.ended_unix_ns <= result.window.started_unix_ns
    assert len(read_samples(directory / "solo_samples.jsonl")) == result.solo.metrics.queries.completed
    assert (directory / "solo_mlperf_log_detail.txt").exists() is bool(profile)
    assert (result.solo.loadgen is None) is not bool(profile)
    assert result.stages_s["measuring alone"] > 0


def test_figures_alone_that_the_samples_do_not_give_are_refused(tmp_path: Path) -> None:
    directory = believed(tmp_path, asked())
    samples = read_samples(directory / "solo_samples.jsonl")
    rewrite_samples(directory / "solo_samples.jsonl", samples[:-1])
    (row,) = aggregate(tmp_path).nodes
    assert row.status == "refused"
    assert "alone, its metric" in row.reason


def test_a_node_that_breaks_in_its_turn_measures_no_more(tmp_path: Path) -> None:
    broken = asked(engine_options={"ttft_ms": 1, "tpot_ms": 0.1, "break_at": 3})
    with led(tmp_path, TURN) as reported, pytest.raises(RunError, match="set to break"):
        run(RunRequest("r1", "jw2", broken, tmp_path, wait_s=60, solo=True))
    assert list(reported) == ["turn"]
    (path,) = tmp_path.glob("mlperf_datacenter_*.json")
    result = read_record(path, NodeResult)
    assert (result.status, result.stage, result.metrics) == ("failed", "measuring alone", None)
    assert len(read_samples(tmp_path / "solo_samples.jsonl")) == 4, "three answers and the one that broke"


def test_a_node_whose_turn_never_comes_gives_up(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no start time came within 1 s"):
        run(RunRequest("r1", "jw2", asked(), tmp_path, wait_s=1, solo=True))
    assert not (tmp_path / "solo_samples.jsonl").exists()
