"""The command, from runs to the tree: what a submitter types, and what is reported."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate
from tests.unit.building import asked as quick
from tests.unit.building import closed_loop, make_run, result_of, write_node
from tests.unit.cluster.submission.checker import complaints
from tests.unit.cluster.submission.conftest import asked, measure

SHORTNESS = {
    "Offline: sample count",
    "Offline: samples per query",
    "Offline: duration",
    "Offline: articles",
    "Server: sample count",
    "Server: early stopping",
    "Server: duration",
    "Server: articles",
}


def call(output: Path, *runs: Path, division: str = "open", system: Path, more: tuple[str, ...] = ()) -> int:
    words = [*map(str, runs), "--division", division, "--submitter", "Us", "--output", str(output)]
    return main(["submission", *words, "--system", str(system), *more])


def test_a_short_run_has_the_complaints_of_shortness_alone(
    tmp_path: Path, offline: Path, server: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / "tree", offline, server, system=system, more=("--node", "jw2")) == 1
    assert set(complaints(tmp_path / "tree")) == SHORTNESS - {"Offline: samples per query"}
    said = capsys.readouterr().out
    assert "unverified, not an MLCommons submission" in said
    assert "-e benchmark_profile=mlperf-offline -e benchmark_accuracy=with-performance" in said
    assert "The engine is simulated" in said
    assert "benchmark_audit" not in said  # the open division asks for no audit


def test_the_tree_says_nothing_of_the_nodes(tmp_path: Path, offline: Path, server: Path, system: Path) -> None:
    call(tmp_path / "tree", offline, server, system=system)
    root = tmp_path / "tree" / "open" / "Us"
    assert {path.name for path in (root / "systems").iterdir()} == {"A_server-1.json", "A_server-2.json"}
    for path in root.rglob("*"):
        assert not path.is_symlink()
        assert "trace" not in path.name
        if path.suffix in (".md", ".json") and path.parent.name != "accuracy":
            assert "jw2" not in path.read_text(), path
            assert str(tmp_path) not in path.read_text(), path
    readme = (root / "results/A_server-1/llama3.1-8b/Server/README.md").read_text()
    assert "unverified, not an MLCommons submission" in readme
    assert "SIMULATED" in readme
    assert "-e benchmark_target_qps=100.0" in readme


def test_accuracy_txt_has_the_hash_of_the_whole_log(tmp_path: Path, offline: Path, system: Path) -> None:
    call(tmp_path / "tree", offline, system=system, more=("--node", "jw3"))
    whole = (offline / "nodes/jw3/accuracy_mlperf_log_accuracy.json").read_bytes()
    accuracy = tmp_path / "tree/open/Us/results/A_server/llama3.1-8b/Offline/accuracy"
    assert f"hash={hashlib.sha256(whole).hexdigest()}\n" in (accuracy / "accuracy.txt").read_text()
    result = json.loads(next((offline / "nodes/jw3").glob("mlperf_datacenter_*.json")).read_text())
    assert f"'rougeLsum': {result['accuracy']['rouge']['rougeLsum']}," in (accuracy / "accuracy.txt").read_text()


def test_the_closed_division_lacks_what_was_not_run(
    tmp_path: Path, offline: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / "tree", offline, division="closed", system=system, more=("--node", "jw2")) == 1
    found = set(complaints(tmp_path / "tree"))
    assert {"llama3.1-8b lacks Server or Interactive", "Offline: TEST06", "Offline: samples per query"} <= found
    said = capsys.readouterr().out
    assert "Server or Interactive of llama3.1-8b: it was not measured: ansible-playbook" in said
    assert "there is no TEST06 run" in said
    assert "-e benchmark_audit=TEST06" in said
    assert (tmp_path / "tree/closed/Us/documentation/calibration.md").is_file()


def test_an_audited_run_lacks_no_test06(
    tmp_path: Path, inputs: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = measure(tmp_path / "run", asked(inputs, "mlperf-server", "with-performance", benchmark_audit="TEST06"))
    call(tmp_path / "tree", run_dir, division="closed", system=system)
    assert aggregate(run_dir).nodes[0].audit.startswith("TEST06 passed: ")
    scenario = tmp_path / "tree/closed/Us/results/A_server/llama3.1-8b/Server"
    log = run_dir / "nodes/jw2/TEST06_mlperf_log_accuracy.json"
    assert (scenario / "TEST06/accuracy/mlperf_log_accuracy.json").read_bytes() == log.read_bytes()
    assert "First token check pass: True\n" in (scenario / "TEST06/verify_accuracy.txt").read_text()
    assert "Server: TEST06" not in complaints(tmp_path / "tree")
    server = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("- Server"))
    assert "TEST06 f" not in server  # neither found nor failed
    assert "no TEST06" not in server
    assert "TEST06 run was not" not in server

    # A log that does not give what the node claims: the node is not believed, and there is no tree.
    entries = json.loads(log.read_text())
    log.write_text(json.dumps([{**entries[0], "token_count": 1}, *entries[1:]]))
    assert call(tmp_path / "again", run_dir, division="closed", system=system) == 2
    assert "its passed of TEST06 is True, its log gives False" in capsys.readouterr().err


def test_performance_without_accuracy_is_written_and_told(
    tmp_path: Path, interactive: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(tmp_path / "tree", interactive, system=system)
    assert (tmp_path / "tree/open/Us/results/A_server/llama3.1-8b/Interactive/performance/run_1").is_dir()
    assert "Interactive: no accuracy" in complaints(tmp_path / "tree")
    assert "there is no accuracy run" in capsys.readouterr().out


def test_accuracy_may_come_from_a_run_of_its_own(
    tmp_path: Path, interactive: Path, inputs: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = measure(tmp_path / "accuracy", asked(inputs, "mlperf-interactive", "only"))
    call(tmp_path / "tree", interactive, accuracy, system=system)
    scenario = tmp_path / "tree/open/Us/results/A_server/llama3.1-8b/Interactive"
    assert (scenario / "user.conf").read_bytes() == (interactive / "nodes/jw2/user.conf").read_bytes()
    assert "Interactive: no accuracy" not in complaints(tmp_path / "tree")
    assert "there is no" not in capsys.readouterr().out
    call(tmp_path / "alone", accuracy, system=system)
    assert "Interactive: no performance" in complaints(tmp_path / "alone")
    assert "there is no performance run" in capsys.readouterr().out


def test_two_runs_of_the_same_are_refused(
    tmp_path: Path, offline: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(offline, tmp_path / "again")
    assert call(tmp_path / "tree", offline, again, system=system) == 2
    assert "both give the performance of Offline on jw2" in capsys.readouterr().err
    assert not (tmp_path / "tree").exists()


def test_a_node_that_is_not_believed_is_left_out(
    tmp_path: Path, offline: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(offline, tmp_path / "copy"))
    log = run_dir / "nodes/jw3/mlperf_log_detail.txt"
    log.write_text(log.read_text().replace('"result_query_count", "value": ', '"result_query_count", "value": 1'))
    call(tmp_path / "tree", run_dir, system=system)
    assert "jw3 of the run" in capsys.readouterr().out
    assert len(list((tmp_path / "tree/open/Us/systems").iterdir())) == 1


def test_nothing_is_written_over_and_nothing_half(
    tmp_path: Path, offline: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    assert call(tmp_path / "there", offline, system=system) == 2
    assert "exists already" in capsys.readouterr().err
    run_dir = Path(shutil.copytree(offline, tmp_path / "copy"))
    log = run_dir / "nodes/jw3/user.conf"
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert call(tmp_path / "tree", run_dir, system=system) == 2
    assert "not a file of a run" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "system.yml", "there"]


def test_a_profile_that_mlperf_does_not_have_is_refused(
    tmp_path: Path, system: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = quick(2)
    make_run(tmp_path / "run", {"jw2": resolved})
    samples = closed_loop([100, 100])
    write_node(tmp_path / "run", result_of("jw2", resolved, samples), samples)
    assert call(tmp_path / "tree", tmp_path / "run", system=system) == 2
    assert "of which MLPerf has no benchmark" in capsys.readouterr().err


def test_a_submitter_is_a_name(tmp_path: Path, offline: Path, system: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "tree", offline, system=system, more=("--submitter", "../up")) == 2
    assert "--submitter: '../up'" in capsys.readouterr().err
