"""The index beside the runs: fast, and never believed where the runs' files say otherwise."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.history import history_of_run
from benchmark.cluster.stored import index, read
from benchmark.cluster.stored.index import INDEX, runs_up_to, stored_runs
from benchmark.cluster.stored.read import StoredRun
from benchmark.files import write_record
from benchmark.rundir import RESULT_FILE, RUN_FILE, read_run
from tests.unit.building import closed_loop
from tests.unit.cluster.comparison.virtual import add_run


def store(results: Path, number: int, latency_ms: float = 1800, **settings: Any) -> str:
    run_id = f"2026{number // 28 + 1:02}{number % 28 + 1:02}T100000Z-0123abcd"
    directory = add_run(results, run_id, {"jw2": closed_loop([latency_ms] * 3)}, settings)
    write_record(directory / RESULT_FILE, aggregate(directory))
    return run_id


def medians(runs: list[StoredRun]) -> list[float]:
    return [one.values["latency_ms.p50"] for run in runs if (one := run.node("jw2"))]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every run whose files were read."""
    made: list[str] = []

    def counted(results: Path, run_id: str) -> dict[str, Any]:
        made.append(run_id)
        return read.read_stored(results, run_id)

    monkeypatch.setattr(index, "read_stored", counted)
    return made


def test_only_what_is_new_or_changed_is_read(tmp_path: Path, reads: list[str]) -> None:
    runs = [store(tmp_path, number) for number in range(3)]
    reads.clear()
    stored_runs(tmp_path)
    reads.clear()
    assert medians(stored_runs(tmp_path)) == [1800] * 3
    assert reads == []
    newest = store(tmp_path, 3, 2000)
    # The same size, the same second, the times put back: what the file says counts.
    path = tmp_path / runs[1] / RESULT_FILE
    seen = path.stat()
    path.write_text(path.read_text().replace('"p50":1800.0', '"p50":1500.0').replace('"p50": 1800.0', '"p50": 1500.0'))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path.stat().st_size == seen.st_size
    reads.clear()
    assert medians(stored_runs(tmp_path)) == [1800, 1500, 1800, 2000]
    assert reads == [runs[1], newest]


@pytest.mark.parametrize("damage", ["missing", "cut", "another version", "one figure", "a list", "a link", "no text"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str, reads: list[str]) -> None:
    run_id = store(tmp_path, 0)
    stored_runs(tmp_path)
    path = tmp_path / INDEX
    text = path.read_text()
    head, _, body = text.partition("\n")
    path.unlink()
    if damage == "a link":
        (tmp_path / "elsewhere").write_text(text)
        path.symlink_to("elsewhere")
    elif damage != "missing":
        made = {
            "cut": text[: len(text) // 2],
            "another version": f"{json.dumps({**json.loads(head), 'version': '0.0.1'})}\n{body}",
            "one figure": text.replace("1800.0", "1801.0"),
            "a list": f"{json.dumps(index._head('[]'))}\n[]",
            "no text": "\0\udcff",
        }[damage]
        path.write_bytes(made.encode(errors="surrogateescape"))
    reads.clear()
    assert medians(stored_runs(tmp_path)) == [1800]
    assert reads == [run_id]
    assert path.read_text() == text


def test_a_run_that_is_gone_is_gone_from_the_index(tmp_path: Path) -> None:
    first, second = store(tmp_path, 0), store(tmp_path, 1)
    stored_runs(tmp_path)
    (tmp_path / first).rename(tmp_path / ".removed")
    assert [run.run_id for run in stored_runs(tmp_path)] == [second]
    assert first not in (tmp_path / INDEX).read_text()


def test_a_copy_is_no_further_run(tmp_path: Path) -> None:
    first, second, third = (store(tmp_path, number) for number in range(3))
    for name in ("-n", "before the driver", f"{second}.bak"):
        shutil.copytree(tmp_path / second, tmp_path / name)
    (tmp_path / first).rename(tmp_path / "the first")
    for _ in ("made", "kept"):
        skipped: list[str] = []
        assert {run.run_id for run in stored_runs(tmp_path, skipped)} == {"the first", second, third}
        assert sorted(skipped) == [
            f"{name}: a copy of the run {second}, which counts once."
            for name in ("-n", f"{second}.bak", "before the driver")
        ]


def test_what_is_older_than_a_run_is_known_by_its_time(tmp_path: Path) -> None:
    first, second, third = (store(tmp_path, number) for number in range(3))
    for number, name in enumerate((first, second, third)):
        run = read_run(tmp_path / name)
        write_record(
            tmp_path / name / RUN_FILE, run.model_copy(update={"created_at": f"2026-01-0{number + 1}T10:00:00Z"})
        )
    (tmp_path / first).rename(tmp_path / "the first")
    assert [run.run_id for run in runs_up_to(tmp_path / second)] == ["the first", second]
    assert [point.run_id for point in history_of_run(tmp_path / second, 9)["jw2"].points] == ["the first", second]
    shutil.copytree(tmp_path / second, tmp_path / "copy")
    assert runs_up_to(tmp_path / "copy") == []


def test_a_directory_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, 0)
    (tmp_path / INDEX).unlink(missing_ok=True)
    (tmp_path / INDEX).mkdir()  # for root too: nothing can take its place
    (tmp_path / INDEX / "x").touch()
    assert medians(stored_runs(tmp_path)) == [1800]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f".{INDEX}")] == []


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    for number in range(8):
        store(tmp_path, number)
    (tmp_path / INDEX).unlink(missing_ok=True)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: medians(stored_runs(tmp_path)), range(16)))
    assert seen == [[1800] * 8] * 16
    assert medians(stored_runs(tmp_path)) == [1800] * 8


def test_runs_of_other_kinds_do_not_push_out_history(tmp_path: Path) -> None:
    own = [store(tmp_path, number, 1500) for number in range(4)]
    other = tmp_path / store(tmp_path, 10, benchmark_dtype="bfloat16")
    for number in range(11, 75):
        shutil.copytree(other, other.with_name(f"{other.name[:9]}{100000 + number}Z-0123abcd"))
    newest = store(tmp_path, 50, 2200)
    found = history_of_run(tmp_path / newest, most=3)["jw2"]
    assert [point.run_id for point in found.points] == [*own[-2:], newest]
    (slow,) = aggregate(tmp_path / newest).findings
    assert slow.against == "the median of its 4 earlier runs"
