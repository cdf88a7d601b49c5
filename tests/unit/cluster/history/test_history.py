"""Every node over all stored runs, from cluster results and node results alone."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.history import node_history
from benchmark.cluster.history.show import render_history
from benchmark.cluster.interruption import keep_interruption
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.records import Failure, Sample
from benchmark.rundir import FAILURE, NODES, RESULT_FILE, RUN_FILE
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import HOST, closed_loop
from tests.unit.cluster.comparison.virtual import add_run


def store(
    results: Path, day: int, nodes: Mapping[str, float], settings: Mapping[str, Any] | None = None, **changes: Any
) -> str:
    """Keep a run of that day, with its cluster's result, in which every node's queries took so many milliseconds."""
    run_id = f"202611{day:02}T100000Z-0123abcd"
    samples: dict[str, list[Sample]] = {node: closed_loop([latency] * 20) for node, latency in nodes.items()}
    directory = add_run(results, run_id, samples, dict(settings or {}), **changes)
    write_record(directory / RESULT_FILE, aggregate(directory))
    return run_id


def stored(results: Path, latencies: Sequence[float], **changes: Any) -> list[str]:
    return [store(results, 1 + number, {"jw2": latency}, **changes) for number, latency in enumerate(latencies)]


def test_a_shift_is_reported_with_its_first_run(tmp_path: Path) -> None:
    runs = stored(tmp_path, [1800, 1810, 1795, 1800])
    newer = HOST.model_copy(update={"packages": {"torch": "2.14.0"}})
    runs += [store(tmp_path, 10 + n, {"jw2": 2100}, environment=newer) for n in range(3)]
    (node,) = node_history(tmp_path).nodes
    assert [point.run_id for point in node.points] == runs
    shift = next(shift for shift in node.shifts if shift.metric == "qps")
    assert (shift.run_id, shift.previous_run_id, shift.worse, shift.runs, shift.tentative) == (
        runs[4], runs[3], True, 3, False,
    )  # fmt: skip
    assert shift.change == pytest.approx(1800 / 2100 - 1, abs=1e-3)
    (at,) = node.drift
    assert (at.run_id, at.facts) == (runs[4], ("packages.torch: not installed -> 2.14.0",))
    text = render_history(node_history(tmp_path))
    assert f"  since     {runs[4]}" in text
    assert "QPS -14%, 0.56 to 0.48: worse" in text
    assert "what drifted: packages.torch: not installed -> 2.14.0" in text
    assert all(columns(line) <= WIDTH for line in text.splitlines())


def test_the_newest_run_alone_is_tentative(tmp_path: Path) -> None:
    stored(tmp_path, [1800, 1810, 1795, 1800, 2100])
    (node,) = node_history(tmp_path).nodes
    assert node.shifts[0].tentative
    assert "1 run so far, one more will tell" in " ".join(render_history(node_history(tmp_path)).split())
    assert "no recorded fact drifted" in render_history(node_history(tmp_path))


def test_runs_with_other_settings_are_another_series(tmp_path: Path) -> None:
    stored(tmp_path, [1800] * 4)
    for day in range(10, 14):
        store(tmp_path, day, {"jw2": 1200}, {"benchmark_dtype": "bfloat16"})
    history = node_history(tmp_path)
    assert [len(node.points) for node in history.nodes] == [4, 4]
    assert not any(node.shifts for node in history.nodes)


def test_one_node_of_many_and_runs_that_cannot_be_read(tmp_path: Path) -> None:
    for day in (1, 2):
        store(tmp_path, day, {"jw2": 1800, "jw10": 1900})
    broken = store(tmp_path, 3, {"jw2": 1800})
    (tmp_path / broken / RESULT_FILE).write_text("{")
    (tmp_path / "latest").symlink_to(broken)
    (tmp_path / "no-run").mkdir()
    history = node_history(tmp_path)
    assert [(node.node, len(node.points)) for node in history.nodes] == [("jw2", 2), ("jw10", 2)]
    assert len(history.skipped) == 1
    assert broken in history.skipped[0]
    assert [node.node for node in node_history(tmp_path, "jw10").nodes] == ["jw10"]


def test_no_samples_are_read(tmp_path: Path) -> None:
    stored(tmp_path, [1800, 1800, 1800, 2400])
    before = node_history(tmp_path)
    for path in tmp_path.rglob("samples.jsonl"):
        path.unlink()
    assert node_history(tmp_path) == before


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, [1800])
    assert main(["history", "--results-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["node"] == "jw2"
    assert main(["history", "--results-dir", str(tmp_path), "--node", "jw9"]) == 2
    assert "has a node of this name; nodes: jw2." in capsys.readouterr().err
    with pytest.raises(InputError):
        node_history(tmp_path / "nowhere")


def test_two_nodes_are_held_against_their_stored_runs(tmp_path: Path) -> None:
    for day in range(1, 5):
        store(tmp_path, day, {"jw2": 1500, "jw3": 2200})
    run_id = store(tmp_path, 6, {"jw2": 1800, "jw3": 2200})
    (found,) = aggregate(tmp_path / run_id).findings
    assert (found.node, found.against) == ("jw2", "the median of its 4 earlier runs")
    # A run looks back, never ahead: made again, an old summary says what it said.
    first = aggregate(tmp_path / "20261101T100000Z-0123abcd").findings
    assert "cannot be known without history" in first[0].against


def failing(results: Path, day: int, *failures: tuple[str, str], partial: bool = False) -> str:
    """Keep a run of that day in which these nodes failed, each in a stage; `partial`: it was interrupted."""
    run_id = store(results, day, {"jw2": 1800, **{node: 1800 for node, _ in failures}})
    directory = results / run_id
    for node, stage in failures:
        shutil.rmtree(directory / NODES / node)
        (directory / NODES / node).mkdir()
        write_record(directory / NODES / node / FAILURE, Failure(node=node, stage=stage, reason="It is\nnot fit."))
    if partial:
        keep_interruption(directory, "SIGINT")
    write_record(directory / RESULT_FILE, aggregate(directory))
    return run_id


def test_runs_that_failed_are_listed_and_counted(tmp_path: Path) -> None:
    runs = [failing(tmp_path, day) for day in range(1, 10)]
    runs.append(failing(tmp_path, 10, ("jw3", "preflight")))
    runs.append(failing(tmp_path, 11, ("jw3", "preflight"), ("jw2", "hf_cache")))
    runs.append(failing(tmp_path, 12))
    # A run whose controller was killed says nothing but what was asked.
    (tmp_path / runs[-1] / RESULT_FILE).unlink()
    history = node_history(tmp_path)
    jw2, jw3 = history.runs
    assert (jw2.count, len(jw2.newest), jw2.failed, jw2.failed_in) == (12, 10, 1, {"hf_cache": 1})
    assert [(one.run_id, one.state) for one in jw2.newest[-3:]] == [
        (runs[9], "valid"), (runs[10], "failed"), (runs[11], "no summary"),
    ]  # fmt: skip
    assert (jw3.count, jw3.failed, jw3.failed_in) == (2, 2, {"preflight": 2})
    assert jw3.newest[0].reason == "preflight: It is not fit."
    text = render_history(history)
    assert "jw2: failed 1 of the last 10 runs, in hf_cache\n" in text
    # Who was stopped by Ctrl-C has not failed.
    failing(tmp_path, 13, ("jw2", "preflight"), partial=True)
    stopped = node_history(tmp_path, "jw2")
    assert (stopped.runs[0].failed, stopped.runs[0].newest[-1].state) == (1, "partial")
    assert "jw2: failed 1 of the last 10 runs, in hf_cache; 1 more was interrupted" in render_history(stopped)
    assert "jw3: not counted in any run; failed 2 of the last 2 runs, in preflight" in " ".join(text.split())
    assert f"  no summary\n            2025-01-02 03:04:05 UTC {runs[11]}, quick\n" in text
    assert all(columns(line) <= WIDTH for line in text.splitlines())


def test_the_stage_is_known_of_results_without_it(tmp_path: Path) -> None:
    run_id = failing(tmp_path, 1, ("jw3", "python_env"))
    path = tmp_path / run_id / RESULT_FILE
    content = json.loads(path.read_text())
    for row in content["nodes"]:
        assert row.pop("stage") == ("python_env" if row["node"] == "jw3" else "")
    path.write_text(json.dumps(content))
    assert node_history(tmp_path, "jw3").runs[0].failed_in == {"python_env": 1}


def test_columns_have_dates_and_every_one_its_run(tmp_path: Path) -> None:
    runs = stored(tmp_path, [1800] * 8)
    for run_id in runs:
        path = tmp_path / run_id / RUN_FILE
        path.write_text(path.read_text().replace("2025-01-02T03:04:05", f"2026-11-{run_id[6:8]}T10:0{run_id[7]}:00"))
    text = render_history(node_history(tmp_path))
    assert "  11-03  11-04  11-05  11-06  11-07  11-08\n" in text
    assert "median  10:03  10:04  10:05  10:06  10:07  10:08\n" in text
    shown = [line for line in text.splitlines() if "-0123abcd" in line]
    assert [line.split()[-1] for line in shown] == runs[-6:]
    assert all("2026-11-0" in line for line in shown)
