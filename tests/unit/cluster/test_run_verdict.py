"""`verdict.json`: how a run ended, in short, also where there is little to say or far too much."""

import json
from pathlib import Path

import jsonschema
import pytest

from benchmark.cli import main
from benchmark.cluster.baseline import set_baseline
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.run_verdict import run_verdict
from benchmark.commands.schema import DIRECTORY
from benchmark.records import ClusterResult, Failure, NodeRow, RunVerdict, Verdict
from benchmark.rundir import read_run
from tests.unit.building import RUN_ID, add_node, asked, make_run

FAST = [1700.0, 1800.0, 1900.0] * 30


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run_dir = make_run(tmp_path / RUN_ID, {"jw2": asked(90), "jw3": asked(90)})
    add_node(run_dir, "jw2", asked(90), FAST)
    return run_dir


def written(run_dir: Path) -> RunVerdict:
    text = (run_dir / "verdict.json").read_text()
    jsonschema.validate(json.loads(text), json.loads((DIRECTORY / "verdict.schema.json").read_text()))
    return RunVerdict.model_validate_json(text)


def test_it_says_what_became_of_each_node(run_dir: Path) -> None:
    failure = Failure(node="jw3", stage="preflight", reason="The disk is full. " + "x" * 3000)
    (run_dir / "nodes/jw3/failure.json").write_text(failure.model_dump_json())
    assert main(["aggregate", str(run_dir)]) == 1
    told = written(run_dir)
    assert (told.outcome, told.run_id, told.profile) == ("invalid", RUN_ID, "quick")
    assert (told.asked_nodes, told.counted_nodes, told.failed_nodes) == (2, 1, 1)
    assert told.counted == ("jw2",)
    assert told.failed[0].reason.startswith("preflight: The disk is full. xxx")
    assert told.failed[0].reason.endswith("xxx ...")
    assert told.report == str(run_dir / "report.html")
    assert told.reasons
    (figures,) = told.figures
    assert figures.latency_ms is not None
    assert figures.latency_ms.p50 == 1800
    assert "p99" in figures.latency_ms.insufficient, "which 90 samples do not give"
    assert told.against_baseline is None


def test_it_says_what_changed_against_the_baseline(run_dir: Path, tmp_path: Path) -> None:
    earlier = make_run(tmp_path / "20250101T000000Z-00000000", {"jw2": asked(90)})
    (earlier / "run.json").write_text((earlier / "run.json").read_text().replace(RUN_ID, earlier.name))
    add_node(earlier, "jw2", asked(90), [value / 2 for value in FAST], run_id=earlier.name)
    set_baseline(earlier)
    add_node(run_dir, "jw3", asked(90), FAST)
    assert main(["aggregate", str(run_dir)]) == 0
    told = written(run_dir)
    assert told.outcome == "valid"
    assert told.reasons == ()
    assert told.against_baseline is not None
    assert (told.against_baseline.baseline, told.against_baseline.outcome) == (earlier.name, "worse")
    (qps,) = [one for one in told.against_baseline.changes if one.metric == "qps" and one.node is None]
    assert qps.change == pytest.approx(-0.5, abs=0.01)
    (tmp_path / "baselines.json").write_text("{")
    assert main(["aggregate", str(run_dir)]) == 0
    told = written(run_dir)
    assert told.against_baseline is not None
    assert "baselines.json: not JSON" in told.against_baseline.note


def test_a_run_without_summary_or_never_opened_has_one_too(run_dir: Path) -> None:
    broken = run_verdict(Outcome(read_run(run_dir), broke="It broke.\nThe disk is full."), run_dir, "report.html")
    assert (broken.outcome, broken.run_id, broken.asked_nodes, broken.report) == ("broken", RUN_ID, 2, None)
    assert broken.reasons == ("It broke.", "The disk is full.")
    refused = run_verdict(Outcome(broke="No run was opened.", refused=True), None, "report.html")
    assert (refused.outcome, refused.run_id, refused.run_dir, refused.figures) == ("refused", None, None, ())


def test_it_stays_small_whatever_a_thousand_nodes_say() -> None:
    rows = [
        NodeRow(node=f"n{number:0119}", status="failed", counted=number % 2 == 0, reason="\u00e9" * 4000)
        for number in range(3000)
    ]
    result = ClusterResult(
        run_id=RUN_ID,
        profile="quick",
        asked=len(rows),
        counted=1500,
        nodes=tuple(rows),
        groups=(),
        overlap=None,
        verdict=Verdict(valid=False, reasons=("\u00e9" * 4000,) * 3000),
    )
    told = run_verdict(Outcome(None, result), None, "report.html")
    assert (told.counted_nodes, told.failed_nodes) == (1500, 1500)
    assert len(told.model_dump_json().encode()) < 2**19
