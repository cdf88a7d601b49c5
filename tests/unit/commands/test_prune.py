"""`python3 -m benchmark prune`: which runs go, and everything that never does."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.leader import controller
from benchmark.files import write_record
from benchmark.records import Attempt, RunRecord
from benchmark.rundir import RESULT_FILE, read_run
from tests.unit.building import add_node, asked

FAST = [1700.0, 1800.0, 1900.0]


def make(results: Path, days: float, summarised: bool = True, samples: int = 3, **changes: Any) -> str:
    """Make a run of that age as a run is made; return its id."""
    at = datetime.now(timezone.utc) - timedelta(days=days)
    run_id = f"{at:%Y%m%dT%H%M%SZ}-0123abcd"
    run_dir = results / run_id
    (run_dir / "nodes" / "jw2").mkdir(parents=True)
    fields = {
        "run_id": run_id,
        "created_at": at.isoformat(timespec="seconds"),
        "command": "ansible-playbook playbooks/benchmark.yml",
        "versions": {},
        "nodes": {"jw2": asked(samples)},
        **changes,
    }
    write_record(run_dir / "run.json", RunRecord.model_validate(fields))
    add_node(run_dir, "jw2", asked(samples), [1800.0] * samples, run_id=run_id)
    if summarised:
        write_record(run_dir / RESULT_FILE, aggregate(run_dir))
    return run_id


@pytest.fixture
def results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Four runs of one kind: 100, 95, 50 and 1 days old."""
    for days in (100, 95, 50, 1):
        make(tmp_path / "results", days)
    capsys.readouterr()
    return tmp_path / "results"


def runs(results: Path) -> list[str]:
    return sorted(path.name for path in results.iterdir() if (path / "run.json").is_file() and not path.is_symlink())


def prune(results: Path, *words: str) -> int:
    return main(["prune", "--results-dir", str(results), *words])


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--keep", "3"], 3),
        (["--keep", "9"], 4),
        (["--keep", "0"], 1),  # the newest of its kind
        (["--older-than", "90d"], 2),
        (["--older-than", "13w"], 2),
        (["--older-than", "2400h"], 3),
        (["--keep", "3", "--older-than", "90d"], 3),
        (["--keep", "1", "--older-than", "90d"], 2),
    ],
)
def test_old_ones_go_once_shown(words: list[str], left: int, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = runs(results)
    assert prune(results, *words) == 0
    shown = capsys.readouterr().out
    assert runs(results) == before, "nothing goes before --yes"
    assert prune(results, *words, "--yes") == 0
    assert runs(results) == before[-left:]
    assert [run_id in shown for run_id in before[:-left]] == [True] * (4 - left)
    assert f"{4 - left} run{'' if left == 3 else 's'}, " in shown or left == 4
    assert "freed." in capsys.readouterr().out or left == 4


def test_what_is_named_stays(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline, named, pinned, newest = runs(results)
    other = make(results, 99, samples=4)
    later = make(results, 98, samples=4)
    assert main(["baseline", "set", baseline, "--results-dir", str(results)]) == 0
    (results / "pinned.txt").write_text(f"# the one from the paper\n{pinned}  # keep\n\nno-such-run\n")
    (results / "latest").symlink_to(newest)
    capsys.readouterr()
    assert prune(results, "--keep", "0", "--never", named, "--yes") == 0
    assert runs(results) == sorted([baseline, named, pinned, newest, later])
    shown = capsys.readouterr().out
    assert f"stays  {baseline}: it is the baseline 'default'" in shown
    assert f"stays  {named}: --never names it" in shown
    assert f"stays  {pinned}: pinned.txt names it" in shown
    assert f"stays  {later}: no newer run has the same settings and hardware" in shown
    assert other in shown


def test_what_goes_on_stays(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    led, locked, resumed, _ = runs(results)
    with subprocess.Popen(["sleep", "300"]) as process:
        try:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            attempt = Attempt(at=read_run(results / led).created_at, command="", nodes=("jw2",))
            attempts = (attempt.model_copy(update={"controller": controller(process.pid)}),)
            rewrite(results / led, attempts=attempts)
            again = attempt.model_copy(update={"at": now})
            rewrite(results / resumed, attempts=(attempt, again))
            held = os.open(results / locked / "nodes" / "jw2", os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
            without = make(results, 7, summarised=False)
            assert prune(results, "--older-than", "5d", "--yes") == 0
            os.close(held)
        finally:
            process.kill()
    assert set(runs(results)) >= {led, locked, resumed, without}
    shown = capsys.readouterr().out
    assert f"stays  {led}: it is in progress, under process {process.pid}" in shown
    assert f"stays  {locked}: a process is working on the files of jw2" in shown
    assert f"stays  {without}: it has no summary" in shown
    assert prune(results, "--older-than", "5d", "--yes") == 0
    assert resumed in runs(results), "its newest attempt is young"
    assert not {led, locked} & set(runs(results))


def rewrite(run_dir: Path, **changes: Any) -> None:
    write_record(run_dir / "run.json", read_run(run_dir).model_copy(update=changes))


def test_what_is_not_certainly_a_run_is_left_alone(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = runs(results)
    outside = results.parent / "outside"
    shutil.copytree(results / first, outside)
    shutil.rmtree(results / first)
    (results / first).symlink_to(outside)
    (results / second / "nodes" / "out").symlink_to(outside)
    shutil.copytree(results / second, results / "of-the-paper", symlinks=True)
    shutil.copytree(results / second, results / "20200101T000000Z-renamed", symlinks=True)
    (results / "20200102T000000Z-empty").mkdir()
    (results / "20200103T000000Z-file").write_text("")
    # As one that may not be entered, which root may.
    (results / "20200104T000000Z-closed").mkdir()
    (results / "20200104T000000Z-closed" / "run.json").symlink_to("x" * 300)
    (results / "submission-datacenter-open" / "offline").mkdir(parents=True)
    before = {path for path in results.iterdir() if path.name != second}
    assert prune(results, "--keep", "0", "--older-than", "94d", "--yes") == 0
    assert set(results.iterdir()) == before
    assert (outside / "run.json").is_file()
    shown = capsys.readouterr().out
    assert f"left alone  {first}: it is a link" in shown
    assert f"left alone  20200101T000000Z-renamed: it holds the run {second}" in shown
    assert "left alone  20200102T000000Z-empty: " in shown
    assert "left alone  20200103T000000Z-file: it is not a directory" in shown
    assert f"left alone  20200104T000000Z-closed: {results}/20200104T000000Z-closed/run.json: File name too" in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
def test_another_users_run_is_left_alone(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = runs(results)[0]
    os.chown(results / first, 65534, 65534)
    assert prune(results, "--older-than", "97d", "--yes") == 0
    assert first in runs(results)
    assert f"left alone  {first}: it belongs to the user nobody" in capsys.readouterr().out


def test_a_removal_that_was_cut_short_is_ended(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = runs(results)[0]
    (results / first).rename(results / f".pruned-{first}")
    assert prune(results, "--keep", "50", "--yes") == 0
    assert "remains of an interrupted removal" in capsys.readouterr().out
    assert not (results / f".pruned-{first}").exists()


def test_two_at_once_remove_each_run_once_and_neither_fails(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rename, removed = Path.rename, shutil.rmtree

    def another_was_first(path: Path, target: Path) -> Path:
        if path.name == runs(results)[0]:
            removed(path)
        return rename(path, target)

    def another_is_at_it(path: Path) -> None:
        (path / "run.json").unlink(missing_ok=True)
        monkeypatch.setattr(shutil, "rmtree", removed)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "run.json")

    monkeypatch.setattr(Path, "rename", another_was_first)
    monkeypatch.setattr(shutil, "rmtree", another_is_at_it)
    before = runs(results)
    assert prune(results, "--older-than", "94d", "--yes") == 0, capsys.readouterr()
    assert len(runs(results)) < len(before) - 1
    assert not list(results.glob(".pruned-*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give --keep N, --older-than AGE"),
        (["--keep", "-1"], "--keep takes a number"),
        (["--older-than", "90"], "--older-than is '90'"),
        (["--older-than", "3m"], "--older-than is '3m'"),
        (["--keep", "1", "--never", "20200101T000000Z-typo"], "is neither a run in"),
        (["--keep", "1", "--never", "../outside"], "../outside is not a run"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    words: list[str], said: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = runs(results)
    assert prune(results, *words, "--yes") == 2
    assert said in capsys.readouterr().err
    assert runs(results) == before


@pytest.mark.parametrize("name", ["baselines.json", "pinned.txt"])
def test_with_a_list_that_cannot_be_read_nothing_goes(name: str, results: Path) -> None:
    (results / name).mkdir()
    before = runs(results)
    assert prune(results, "--keep", "0", "--yes") == 2
    assert runs(results) == before
