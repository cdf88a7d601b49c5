"""Every command on runs of the profile hardware, which have no engine, no dataset, no metrics and no samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster.estimated_duration import estimated_durations, measurement_s
from benchmark.cluster.next_steps import next_steps
from tests.unit.building import hardware, probes
from tests.unit.probed_runs import store


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three runs of two nodes; in the last one a node failed."""
    return [store(tmp_path, day, {"gpu1": probes(2), "gpu2": None if day == 3 else probes(2)}) for day in (1, 2, 3)]


def test_a_submission_is_refused_in_a_sentence(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["submission", str(runs[0]), "--division", "open", "--submitter", "X", "--output", str(runs[0] / "tree")]
    assert main(words) == 2
    assert "is of the profile hardware, of which MLPerf has no benchmark" in capsys.readouterr().err
    assert not (runs[0] / "tree").exists()


def test_prune_keeps_the_newest_of_its_kind(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "--results-dir", str(runs[0].parent), "--keep", "0"]) == 0
    printed = capsys.readouterr().out
    assert f"stays  {runs[-1].name}" in printed
    assert "hardware, 2 nodes" in printed


def test_it_is_aggregated_again_and_says_what_comes_next(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregate", str(runs[-1])]) == 1
    assert "Interrupted while its hardware was probed." in capsys.readouterr().out
    assert next_steps(runs[-1])[-1].startswith("Measure gpu2 again, in this run: ")


def test_a_node_that_was_not_probed_is_not_compared(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", f"{runs[0]}/gpu1", f"{runs[-1]}/gpu1"]) == 0
    assert main(["compare", f"{runs[0]}/gpu2", f"{runs[-1]}/gpu2"]) == 2
    assert "none of its nodes is counted" in capsys.readouterr().err


def test_no_time_is_estimated_for_it() -> None:
    assert estimated_durations([hardware()]) == []
    assert measurement_s(hardware()) is None
