"""`python3 -m benchmark aggregate`: files, exit codes, sentences."""

import io
import json
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate
from benchmark.commands import aggregate as aggregate_command
from benchmark.files import read_record
from benchmark.records import ClusterResult, NodeResult
from tests.unit.building import add_node, asked, make_run

FAST = [1700.0, 1800.0, 1900.0]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    add_node(tmp_path, "jw2", asked(3), FAST)
    return tmp_path


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


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

    monkeypatch.setattr(aggregate_command, "render_node", broken)
    assert main(["aggregate", str(run_dir)]) == 0
    assert "a claim that nobody foresaw" in texts["jw2"].read_text()
    assert texts["jw3"].read_text() == "jw3\n"


def test_failures_from_stdin_are_kept(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    give(monkeypatch, json.dumps({"jw3": {"stage": "hf_cache", "reason": "The disk is full. " + "x" * 9000}}))
    assert main(["aggregate", "--failures-from-stdin", str(run_dir)]) == 1
    assert "hf_cache: The disk is full." in capsys.readouterr().out
    # Kept: the next summary needs no stdin.
    assert main(["aggregate", str(run_dir)]) == 1
    assert "hf_cache: The disk is full." in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("nothing", ["", "{}"])
def test_no_failures(run_dir: Path, monkeypatch: pytest.MonkeyPatch, nothing: str) -> None:
    give(monkeypatch, nothing)
    assert main(["aggregate", "--failures-from-stdin", str(run_dir)]) == 1
    assert not list(run_dir.rglob("failure.json"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "The failures on stdin cannot be read"),
        ("{", "The failures on stdin cannot be read"),
        ('{"jw3": {"stage": "", "reason": "x"}}', "The failures on stdin cannot be read"),
        ('{"../jw3": {"stage": "x", "reason": "x"}}', "nodes that were not asked: ../jw3"),
    ],
)
def test_bad_failures_are_refused_before_anything_is_written(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    give(monkeypatch, text)
    assert main(["aggregate", "--failures-from-stdin", str(run_dir)]) == 2
    assert said in capsys.readouterr().err
    assert not list(run_dir.rglob("failure.json"))
    assert not (run_dir / "benchmark_summary.txt").exists()


def test_a_directory_that_is_not_a_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregate", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} is not a run: there is no run.json in it.\n"
