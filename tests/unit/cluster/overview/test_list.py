"""`python3 -m benchmark list`: the stored runs in a terminal, the newest first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster.overview.listing import Wanted, list_runs
from benchmark.cluster.overview.show import render_list
from benchmark.records import RunList
from benchmark.rundir import RUN_FILE
from benchmark.text.columns import WIDTH, columns
from benchmark.text.figures import figure
from tests.unit.building import RUN_ID, in_progress, make_run
from tests.unit.cluster.overview import stored
from tests.unit.queues import LADDER, S, queue, sweeping, write_sweep


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty runs, and one that cannot be read."""
    found = tmp_path_factory.mktemp("results")
    given = stored.patterns(tmp_path_factory.mktemp("patterns"))
    stored.fill(found, 20, given)
    (stored.keep(found, 20, given["quick"]) / RUN_FILE).write_text("{")
    return found


def test_it_says_of_each_run_how_it_ended(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--results-dir", str(results), "--limit", "6"]) == 0
    text = capsys.readouterr().out
    assert all(columns(line) <= WIDTH for line in text.splitlines())
    words = " ".join(text.split())
    assert "2025-01-20 10:00 no summary quick -/3 - -" in words
    group = list_runs(results, Wanted(verdict="valid")).runs[0].groups[0]
    assert f"2025-01-19 10:00 valid quick 3/3 {figure(group.qps)} {figure(group.tokens_per_s)} " in words
    assert f"2025-01-15 10:00 valid hardware 2/2 - - {stored.run_id(14)} device memory read 4,100 GB/s, " in words
    assert words.index(stored.run_id(19)) < words.index(stored.run_id(18))
    assert "The newest 6 of 20 runs; --limit 0 shows all." in words
    assert "run.json: not JSON" in words


@pytest.mark.parametrize(
    ("words", "days"),
    [
        (["--verdict", "no-summary"], [20]),
        (["--verdict", "partial"], [10]),
        (["--profile", "hardware"], [15]),
        (["--node", "jw4"], [5]),
        (["--node", "gpu-004"], [10]),
        (["--node", "gpu-001", "--verdict", "valid", "--limit", "2"], [19, 18]),
        (["--node", "jw4", "--profile", "hardware"], []),
    ],
)
def test_filters(results: Path, words: list[str], days: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--results-dir", str(results), "--json", *words]) == 0
    found = RunList.model_validate_json(capsys.readouterr().out)
    assert [int(run.created_at[8:10]) for run in found.runs] == days
    assert found.stored == 20
    for run in found.runs:
        assert run.report == ("" if run.verdict == "no summary" else str(results / run.run_id / "report.html"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--node", "jw9"], "jw9: no run in {} has a node of this name; nodes: gpu-001, gpu-002"),
        (["--profile", "quik"], "quik: no run in {} has a profile of this name; profiles: hardware, quick."),
        (["--limit", "-1"], "--limit takes a number of runs"),
    ],
)
def test_wrong_names_are_refused(
    results: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--results-dir", str(results), *words]) == 2
    assert said.format(results) in capsys.readouterr().err


def test_a_run_that_goes_on_is_in_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = stored.patterns(tmp_path / "patterns")
    run_dir = stored.keep(tmp_path / "results", 3, given["partial"])
    where = ["--results-dir", str(tmp_path / "results")]
    words = {}
    with in_progress(run_dir):
        for command in ("list", "history"):
            assert main([command, *where]) == 0
            words[command] = " ".join(capsys.readouterr().out.split())
        assert main(["list", *where, "--verdict", "in-progress", "--json"]) == 0
        assert RunList.model_validate_json(capsys.readouterr().out).matching == 1
        assert main(["aggregate", str(run_dir)]) == 1
        summary = " ".join(capsys.readouterr().out.split())
    assert "in progress quick -/2" in words["list"]
    assert "It is in progress." in words["list"]
    assert "in progress 2025-01-04" in words["history"]
    assert "failed" not in words["history"]
    assert "*** IN PROGRESS. The run is still going" in summary
    assert "Nodes 0 of 2 counted, 2 in progress: gpu-001, gpu-004" in summary
    assert summary.endswith("IN PROGRESS: the verdict comes with the run's end.")
    assert "ot counted" not in summary
    # Without its leader it is what it was: ended before its time.
    assert main(["list", *where]) == 0
    assert "in progress" not in capsys.readouterr().out


def test_a_sweep_is_listed_by_its_knee(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "results" / RUN_ID
    run_dir.mkdir(parents=True)
    resolved = sweeping()
    make_run(run_dir, {"jw2": resolved})
    steps = {users: queue(users, 6, [2 * S] * users * 6) for users in LADDER}
    write_sweep(run_dir, "jw2", resolved, steps)
    assert main(["aggregate", str(run_dir)]) == 0
    summary = " ".join(capsys.readouterr().out.split())
    assert "knee at 6 in flight on each GPU, 192 tokens/s at most 8 in flight on each GPU: all figures" in summary
    assert main(["list", "--results-dir", str(run_dir.parent)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"valid quick 1/1 - 192 {RUN_ID} knee at 6 in flight on each GPU, 192 tokens/s at most" in words


def test_groups_are_never_added_up(results: Path, tmp_path: Path) -> None:
    run = list_runs(results, Wanted(verdict="valid")).runs[0]
    other = run.groups[0].model_copy(update={"qps": 0.25, "tokens_per_s": 16.0})
    two = run.model_copy(update={"groups": (run.groups[0], other), "not_hardware": "simulated: no model was run"})
    text = render_list(RunList(runs=(two,), matching=1, stored=1))
    assert "0.25   16.0" in text
    assert "SIMULATED" in text
    assert "There is no run." in render_list(list_runs(tmp_path, Wanted()))


def test_the_inventory_says_where_runs_are(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inventory = tmp_path / "hosts.yml"
    variables = {"ansible_connection": "local", "benchmark_results_dir": str(results)}
    inventory.write_text(json.dumps({"gpu_nodes": {"hosts": {"jw2": variables}}}))
    assert main(["list", "-i", str(inventory), "--limit", "1"]) == 0
    assert stored.run_id(19) in capsys.readouterr().out
    assert main(["index", "-i", str(inventory)]) == 0
    assert (results / "index.html").is_file()
