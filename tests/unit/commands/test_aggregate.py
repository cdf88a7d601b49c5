"""`python3 -m benchmark aggregate`: files, exit codes, sentences."""

from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster import summarise
from benchmark.cluster.aggregate import aggregate
from benchmark.files import read_record
from benchmark.records import ClusterResult, NodeResult
from tests.unit.building import add_node, asked, make_run

FAST = [1700.0, 1800.0, 1900.0]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    add_node(tmp_path, "jw2", asked(3), FAST)
    return tmp_path


def test_valid_is_0_and_invalid_is_1(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregate", str(run_dir)]) == 1
    assert "INVALID" in capsys.readouterr().out
    add_node(run_dir, "jw3", asked(3), FAST)
    assert main(["aggregate", str(run_dir)]) == 0
    printed = capsys.readouterr().out
    assert printed == (run_dir / "benchmark_summary.txt").read_text()
    assert read_record(run_dir / "aggregated_datacenter_results.json", ClusterResult) == aggregate(run_dir)


def test_it_follows_latest(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    latest = tmp_path_factory.mktemp("results") / "latest"
    latest.symlink_to(run_dir)
    assert main(["aggregate", str(latest)]) == 1
    assert (run_dir / "benchmark_summary.txt").is_file()


def test_each_result_is_there_as_text(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_node(run_dir, "jw3", asked(3), FAST)
    assert main(["aggregate", str(run_dir)]) == 0
    texts = {node: next((run_dir / "nodes" / node).glob("mlperf_datacenter_*.txt")) for node in ("jw2", "jw3")}
    for node, path in texts.items():
        assert path.read_text().startswith(
            f"LLM inference benchmark: node {node}\nunverified, not an MLCommons submission"
        )

    def broken(result: NodeResult) -> str:
        if result.node == "jw2":
            raise ValueError("a claim that nobody foresaw")
        return f"{result.node}\n"

    monkeypatch.setattr(summarise, "render_node", broken)
    assert main(["aggregate", str(run_dir)]) == 0
    assert "a claim that nobody foresaw" in texts["jw2"].read_text()
    assert texts["jw3"].read_text() == "jw3\n"


def test_a_directory_that_is_not_a_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregate", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} is not a run: it has no run.json.\n"
