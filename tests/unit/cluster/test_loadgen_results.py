"""What a node says of LoadGen is held against LoadGen's own logs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.loadgen_log import read_result
from benchmark.node.run import RunRequest, run
from benchmark.records import ClusterResult, NodeRow, Slo
from benchmark.settings import ResolvedSettings
from tests.unit.building import RUN_ID, make_run
from tests.unit.node.loadgen_runs import asked


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LoadGen on one node."""
    run_dir = tmp_path_factory.mktemp("run")
    make_run(run_dir, {"jw2": resolved()})
    run(RunRequest(RUN_ID, "jw2", resolved(), run_dir / "nodes" / "jw2"))
    return run_dir


def resolved() -> ResolvedSettings:
    return asked({"scenario_options": {"scenario": "Server", "min_duration_ms": 300, "min_query_count": 30}})


@pytest.fixture
def run_dir(measured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured, tmp_path / "copy"))


def only(result: ClusterResult) -> NodeRow:
    (row,) = result.nodes
    return row


def test_it_counts_with_loadgens_own_rates(run_dir: Path) -> None:
    result = aggregate(run_dir)
    row = only(result)
    assert row.counted, result.problems
    content = json.loads(next((run_dir / "nodes/jw2").glob("mlperf_datacenter_*.json")).read_text())
    assert row.metrics is not None
    assert row.metrics.qps == content["loadgen"]["results"]["result_completed_samples_per_sec"]
    assert result.groups[0].qps == row.metrics.qps
    # Goodput is held against the limits of LoadGen's own verdict, and is a share of its rate.
    assert row.goodput is not None
    assert row.goodput.slo == Slo(ttft_ms=2000, tpot_ms=100)
    assert row.metrics.qps is not None
    assert row.goodput.qps == pytest.approx(row.metrics.qps * row.goodput.met / row.metrics.queries.completed)
    # A hundred queries are too few for LoadGen: its verdict is the node's.
    assert "LoadGen: early stopping satisfied: no." in row.reason


def test_a_limit_of_loadgens_that_is_no_number_is_none(run_dir: Path) -> None:
    log = run_dir / "nodes" / "jw2" / "mlperf_log_detail.txt"
    limit = '"requested_server_ttft_latency", "value": '
    assert limit in log.read_text()
    log.write_text(log.read_text().replace(f"{limit}2000000000", f"{limit}{10**400}"))
    row = only(aggregate(run_dir))
    assert row.counted, row.reason
    assert row.goodput is not None
    assert row.goodput.slo == Slo(tpot_ms=100)


def edit_result(directory: Path) -> None:
    (path,) = directory.glob("mlperf_datacenter_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    content["loadgen"]["valid"] = True
    path.write_text(json.dumps(content))


def edit_log(directory: Path) -> None:
    path = directory / "mlperf_log_detail.txt"
    path.write_text(path.read_text().replace('"result_query_count", "value": ', '"result_query_count", "value": 1'))


def claim(directory: Path, **fields: Any) -> None:
    """Change what result and detailed log say of LoadGen alike, as a node that lies would."""
    (path,) = directory.glob("mlperf_datacenter_*.json")
    content = json.loads(path.read_text())
    content["loadgen"] |= fields
    path.write_text(json.dumps(content))


def accuracy_mode(directory: Path) -> None:
    """Make LoadGen's log and the quote those of a run that has no verdict."""
    log = directory / "mlperf_log_detail.txt"
    lines = [line for line in log.read_text().splitlines() if '"result_validity"' not in line]
    log.write_text("\n".join(lines).replace("PerformanceOnly", "AccuracyOnly") + "\n")
    quote = read_result(directory).model_dump(mode="json")
    claim(directory, **quote)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: claim(d, scenario="MultiStream"), "loadgen.scenario: Input should be 'Server'"),
        (accuracy_mode, "it has no verdict of LoadGen"),
        (lambda d: claim(d, results={"result_completed_samples_per_sec": 10**400}), "is not one of LoadGen's figures"),
    ],
)
def test_a_node_that_lies_takes_nobody_elses_result_with_it(run_dir: Path, spoil: Any, said: str) -> None:
    spoil(run_dir / "nodes" / "jw2")
    row = only(aggregate(run_dir))
    assert row.status == "refused"
    assert said in row.reason


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (edit_result, "its valid of LoadGen is True, mlperf_log_detail.txt and its summary say False"),
        (edit_log, "its results.result_query_count of LoadGen is"),
        (lambda d: (d / "mlperf_log_detail.txt").unlink(), "mlperf_log_detail.txt: No such file"),
        (lambda d: (d / "mlperf_log_summary.txt").write_text("SUT name : another\n"), "of LoadGen is"),
    ],
)
def test_a_quote_that_the_logs_do_not_hold_is_refused(run_dir: Path, spoil: Any, said: str) -> None:
    spoil(run_dir / "nodes" / "jw2")
    row = only(aggregate(run_dir))
    assert row.status == "refused"
    assert said in row.reason
