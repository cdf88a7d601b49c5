"""A run by the names that people give it."""

import os
import re
import shutil
from pathlib import Path

import pytest

from benchmark.cluster.stored.find import find_run
from benchmark.errors import InputError
from tests.unit.building import asked, make_run

OLD, NEW = "20250101T000000Z-aaaaaaaa", "20250102T000000Z-bbbbbbbb"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name in (OLD, NEW):
        make_run(tmp_path / "results" / name, {"jw2": asked()})
    (tmp_path / "results" / "latest").symlink_to(OLD)
    return tmp_path / "results"


NAMES = ["latest", OLD, OLD[:16], "20250101", "results/latest", f"results/{OLD}/", "{}/" + OLD]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_leads_to_the_run(results: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    assert find_run(results, name.format(results)) == results / OLD


def test_latest_without_its_link_is_the_newest(results: Path) -> None:
    (results / "latest").unlink()
    assert find_run(results, "latest") == results / NEW
    (results / "latest").symlink_to("removed")
    assert find_run(results, "latest") == results / NEW


def test_a_name_of_somebody_s_own_is_never_the_newest(results: Path) -> None:
    (results / "latest").unlink(missing_ok=True)
    newest = find_run(results, "latest")
    shutil.copytree(newest, results / "of-the-paper")
    assert find_run(results, "latest") == newest
    assert find_run(results, "of-the-paper") == results / "of-the-paper"


def test_a_beginning_of_two_ids_is_refused(results: Path) -> None:
    with pytest.raises(InputError, match=rf"2025010 may be {NEW}, {OLD}: give more"):
        find_run(results, "2025010")


@pytest.mark.parametrize("name", ["20990101T000000Z-cccccccc", "x/../../other", ".", "", "x" * 300, "2025*"])
def test_no_such_run_names_the_newest(results: Path, name: str) -> None:
    make_run(results.parent / "other", {"jw2": asked()})
    with pytest.raises(InputError, match=rf"is neither a run in .*results.*: the newest runs are {NEW}, {OLD}\."):
        find_run(results, name)


@pytest.mark.parametrize("path", ["../other", "/etc", "./x", "~/x"])
def test_what_can_only_be_a_path_is_looked_for_there(results: Path, path: str) -> None:
    make_run(results.parent / "other", {"jw2": asked()})
    with pytest.raises(InputError, match=rf"^{re.escape(path)} is not a run: it has no run.json\.$"):
        find_run(results, path)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: No such file or directory: no run was stored there yet, or"):
        find_run(tmp_path / "nowhere", "latest")


def test_a_name_in_the_current_directory(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results / NEW)
    assert find_run(results, os.curdir) == results / NEW
    monkeypatch.chdir(results)
    assert find_run(results.parent / "empty", NEW) == results / NEW
