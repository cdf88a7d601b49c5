"""The directory that a run gets."""

import errno
import os
import re
from pathlib import Path

import pytest

from benchmark import rundir
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.records import RunRecord
from benchmark.rundir import open_run
from tests.unit.building import asked


@pytest.fixture(autouse=True)
def _checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_is_opened_with_what_was_asked(tmp_path: Path) -> None:
    resolved = {"jw2": asked(3), "jw3": asked(3, benchmark_target_qps=0.7)}
    run_id, directory = open_run(
        resolved, command="make it so", versions={"ansible-core": "2.19"}, hosts={"jw2": "10.0.0.2"}
    )
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}-[0-9a-f]{6}", run_id)
    assert directory == tmp_path / "results" / run_id
    run = read_record(tmp_path / "results" / "latest" / "run.json", RunRecord)
    assert (run.run_id, run.command, run.hosts) == (run_id, "make it so", {"jw2": "10.0.0.2"})
    assert {"ansible-core", "python", "llm-datacenter-benchmark"} <= run.versions.keys()
    assert run.nodes == resolved


def test_runs_of_one_second_have_directories_of_their_own(tmp_path: Path) -> None:
    directories = [open_run({"jw2": asked(3)}, command="")[1] for _ in range(5)]
    assert len(set(directories)) == 5
    assert (tmp_path / "results" / "latest").resolve() == directories[-1]
    assert [read_record(path / "run.json", RunRecord).run_id for path in directories] == [p.name for p in directories]


def test_two_controllers_have_ids_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for number in range(5):
        # Nobody sees another's results: they would meet on a node.
        (tmp_path / f"{number}").mkdir()
        monkeypatch.chdir(tmp_path / f"{number}")
        ids.append(open_run({"jw2": asked(3)}, command="")[0].split("-"))
    assert len({random for _, _, random in ids}) == 5
    assert len({settings for _, settings, _ in ids}) == 1


def test_the_id_tells_different_settings_apart() -> None:
    ids = [open_run({"jw2": asked(3, benchmark_target_qps=qps)}, command="")[0] for qps in (1, 1, 2)]
    hashes = [run_id.split("-")[1] for run_id in ids]
    assert hashes[0] == hashes[1] != hashes[2]


def test_latest_is_relative_so_that_results_may_be_moved(tmp_path: Path) -> None:
    run_id, _ = open_run({"jw2": asked(3)}, command="")
    assert str((tmp_path / "results" / "latest").readlink()) == run_id


def test_results_that_cannot_be_written_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match=r"benchmark_results_dir: .*/results exists, but is not a directory"):
        open_run({"jw2": asked(3)}, command="")


def test_of_a_run_that_cannot_be_opened_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rundir, "write_record", full)
    wanted = r"benchmark_results_dir: .*/results on the controller cannot be written: No space left on device\. Make"
    with pytest.raises(InputError, match=wanted):
        open_run({"jw2": asked(3)}, command="")
    assert list((tmp_path / "results").iterdir()) == []
