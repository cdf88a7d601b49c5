"""The page over all runs is always whole, small, safe to open, and never a reason for a run to fail."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import locks
from benchmark.cli import main
from benchmark.cluster.overview import page as overview_page
from benchmark.cluster.overview.write import OURS, write_index
from benchmark.cluster.stored.index import stored_runs
from benchmark.rundir import NODES, PAGE_FILE, RESULT_FILE, RUN_FILE
from tests.unit.cluster.history.test_history import store
from tests.unit.cluster.overview import stored
from tests.unit.cluster.report.runs import HOSTILE


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, stored.Content]:
    return stored.patterns(tmp_path_factory.mktemp("patterns"))


def listed(results: Path) -> list[str]:
    """Return the ids in the page, in its order."""
    return re.findall(r"<small>(2[^<]*)</small></th>", (results / PAGE_FILE).read_text())


def test_every_summary_makes_it_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [store(tmp_path, day, {"jw2": 1800, "jw3": 1900}) for day in (1, 2)]
    assert main(["aggregate", str(tmp_path / runs[1])]) == 0
    assert listed(tmp_path) == runs[::-1]
    # One that is not the newest, and that cannot be summarised: the page says so.
    (tmp_path / runs[0] / RUN_FILE).write_text("{")
    capsys.readouterr()
    assert main(["aggregate", str(tmp_path / runs[0])]) == 2
    assert listed(tmp_path) == runs[1:]
    assert f"{runs[0]}/run.json: not JSON" in (tmp_path / PAGE_FILE).read_text()
    assert main(["prune", "--keep", "0", "--yes", "--results-dir", str(tmp_path)]) == 0
    assert listed(tmp_path) == runs[1:], "the newest of its kind stays"
    (tmp_path / PAGE_FILE).unlink()
    assert main(["index", "--results-dir", str(tmp_path)]) == 0
    assert listed(tmp_path) == runs[1:]
    assert f"{tmp_path / PAGE_FILE}: 1 run\n" in capsys.readouterr().out


def test_a_removed_run_is_gone_from_it(tmp_path: Path, given: dict[str, stored.Content]) -> None:
    for number in range(3):
        stored.keep(tmp_path, number, given["quick"])
    write_index(tmp_path)
    assert main(["prune", "--keep", "1", "--yes", "--results-dir", str(tmp_path)]) == 0
    assert listed(tmp_path) == [stored.run_id(2)]


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def another_page(path: Path) -> None:
    path.write_text("<!doctype html><title>Our group's home page</title>")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("there", "said"),
    [(a_directory, "Is a directory"), (another_page, "is not the page over all runs"), (a_pipe, "is not the page")],
)
def test_no_run_fails_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: Callable[[Path], None], said: str
) -> None:
    run_id = store(tmp_path, 1, {"jw2": 1800})
    there(tmp_path / PAGE_FILE)
    before = (tmp_path / PAGE_FILE).lstat().st_ino
    assert main(["aggregate", str(tmp_path / run_id)]) == 0
    assert said in capsys.readouterr().err
    assert (tmp_path / PAGE_FILE).lstat().st_ino == before
    assert main(["index", "--results-dir", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f".{PAGE_FILE}")] == []


def test_whoever_holds_the_directory_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with locks.alone(tmp_path):  # noqa: SIM117 # the second one waits for the first
        with pytest.raises(TimeoutError, match="another process"), locks.alone(tmp_path, patience_s=0.05):
            pass
    write_index(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_who_may_read_it_is_for_the_umask_to_say(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_index(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / PAGE_FILE).stat().st_mode & 0o777 == 0o644 & ~umask


def _end_runs(results: Path, content: stored.Content, numbers: list[int]) -> None:
    for number in numbers:
        stored.keep(results, number, content)
        write_index(results)


def test_controllers_at_the_same_time_neither_tear_nor_lose(tmp_path: Path, given: dict[str, stored.Content]) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [
        fork.Process(target=_end_runs, args=(tmp_path, given["hardware"], list(range(first, 12, 3))))
        for first in range(3)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / PAGE_FILE).exists():
            text = (tmp_path / PAGE_FILE).read_text()
            assert text.startswith("<!doctype html>")
            assert text.endswith("</html>")
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert listed(tmp_path) == [stored.run_id(number) for number in range(11, -1, -1)]


def test_runs_that_cannot_be_read_are_named(tmp_path: Path, given: dict[str, stored.Content]) -> None:
    whole, damaged, closed = (stored.keep(tmp_path, number, given["quick"]) for number in range(3))
    (damaged / RESULT_FILE).write_text("{")
    odd = tmp_path / os.fsdecode(b"2025\xff")
    odd.mkdir()
    (odd / RUN_FILE).write_text((whole / RUN_FILE).read_text())
    write_index(tmp_path)
    text = (tmp_path / PAGE_FILE).read_text()
    assert listed(tmp_path) == [closed.name, whole.name]
    assert f"{damaged.name}/{RESULT_FILE}: not JSON" in text
    assert "2025?: no name of a run." in text
    # Of another user: root may enter every directory.
    closed.chmod(0)
    for place in (tmp_path, *tmp_path.parents):
        if not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o055)
    before, skipped = os.geteuid(), list[str]()
    os.seteuid(65534 if before == 0 else before)
    try:
        assert [run.run_id for run in stored_runs(tmp_path, skipped)] == [whole.name]
    finally:
        os.seteuid(before)
        closed.chmod(0o755)
    assert f"{closed}: Permission denied." in skipped


def test_what_runs_say_is_shown_and_does_nothing(tmp_path: Path, given: dict[str, stored.Content]) -> None:
    run, result = json.loads(json.dumps(given["failed"]))
    for asked in run["nodes"].values():
        asked["profile"]["name"] = HOSTILE
    for row in result["nodes"]:
        row["reason"], row["model"] = HOSTILE, HOSTILE
    directory = stored.keep(tmp_path, 1, (run, result))
    directory.rename(tmp_path / "a copy #1? of <b>'it'")
    write_index(tmp_path)
    text = (tmp_path / PAGE_FILE).read_text(encoding="utf-8")
    assert text.encode().find(OURS) > 0
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "<script" not in text
    assert "<img" not in text
    assert text.count("{{ 7 * 7 }}") > 2
    assert 'href="a%20copy%20%231%3F%20of%20%3Cb%3E%27it%27/report.html"' in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_its_size_is_bounded(tmp_path: Path, given: dict[str, stored.Content], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview_page, "MOST_RUNS", 3)
    monkeypatch.setattr(overview_page, "MOST_LINES", 2)
    monkeypatch.setattr(overview_page, "MOST_SKIPPED", 1)
    for number in range(5):
        stored.keep(tmp_path, number, given["quick"])
    for number in (5, 6):
        (stored.keep(tmp_path, number, given["quick"]) / RESULT_FILE).write_text("{")
    assert write_index(tmp_path) == 5
    assert listed(tmp_path) == [stored.run_id(number) for number in (4, 3, 2)]
    text = (tmp_path / PAGE_FILE).read_text()
    assert "2 older runs are not shown here" in text
    assert text.count('class="chart spark"') == 2
    assert "1 more are not shown here" in text
    assert "<li>and 1 more</li>" in text


def test_a_run_of_simulated_nodes_says_so(tmp_path: Path, given: dict[str, stored.Content]) -> None:
    run, result = json.loads(json.dumps(given["quick"]))
    for row in result["nodes"]:
        row["simulated"] = True
    stored.keep(tmp_path, 1, (run, result))
    write_index(tmp_path)
    assert "simulated: no model was run" in (tmp_path / PAGE_FILE).read_text()


def test_no_samples_are_read(tmp_path: Path) -> None:
    run_id = store(tmp_path, 1, {"jw2": 1800})
    write_index(tmp_path)
    before = (tmp_path / PAGE_FILE).read_text()
    for path in (tmp_path / run_id / NODES).rglob("*.json*"):
        path.unlink()
    write_index(tmp_path)
    assert (tmp_path / PAGE_FILE).read_text().split("<footer>")[0] == before.split("<footer>")[0]
