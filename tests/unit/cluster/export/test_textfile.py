"""What a node exporter collects: several files and results directories together, by Prometheus' own parser."""

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmark.cli import main
from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.export.textfile import FILE, write_textfile
from benchmark.cluster.interruption import keep_interruption
from benchmark.files import read_record, write_record
from benchmark.records import Failure, RunRecord
from benchmark.rundir import NODES, RESULT_FILE, RUN_FILE
from benchmark.settings import ResolvedSettings
from tests.unit.building import add_node, asked, make_run

Fleet = tuple[str, ...]
BOTH = ("jw2", "jw3")


def store(
    results: Path, day: int, nodes: dict[str, float], of: ResolvedSettings, inventory: Fleet = (), failed: Fleet = ()
) -> str:
    """Keep a run of that day: latencies in milliseconds by node, and nodes that failed."""
    run_id = f"202611{day:02}T100000Z-0123abcd"
    directory = make_run(results / run_id, dict.fromkeys((*nodes, *failed), of))
    record = read_record(directory / RUN_FILE, RunRecord)
    changes = {"run_id": run_id, "inventory": inventory, "created_at": f"2026-11-{day:02}T10:00:00+00:00"}
    write_record(directory / RUN_FILE, record.model_copy(update=changes))
    for node, latency_ms in nodes.items():
        add_node(directory, node, of, [latency_ms] * 3, run_id=run_id)
    for node in failed:
        write_record(directory / NODES / node / "failure.json", Failure(node=node, stage="preflight", reason="no"))
    write_record(directory / RESULT_FILE, aggregate(directory))
    return run_id


def collected(files: Iterable[Path]) -> dict[str, Metric]:
    """Return every metric of files in one directory, as the textfile collector takes them: no series twice."""
    families: dict[str, Metric] = {}
    seen = set()
    for file in files:
        for family in text_string_to_metric_families(file.read_text()):
            known = families.setdefault(family.name, family)
            assert (known.documentation, known.type) == (family.documentation, family.type)
            for one in family.samples:
                series = (one.name, *sorted(one.labels.items()))
                assert series not in seen, "collected before with the same name and label values"
                seen.add(series)
            if known is not family:
                known.samples += family.samples
    return families


def values(families: dict[str, Metric], name: str, *labels: str) -> list[tuple[Any, ...]]:
    """Return these labels and the value of each series, in order."""
    found = families[f"llm_benchmark_{name}"].samples
    return sorted((*(one.labels.get(label, "") for label in labels), one.value) for one in found)


def slowest(families: dict[str, Metric]) -> dict[tuple[str, str], float]:
    """Return the highest latency in seconds by node and engine."""
    found = values(families, "latency_seconds", "statistic", "node", "engine")
    return {(node, engine): value for statistic, node, engine, value in found if statistic == "max"}


def written(directory: Path) -> dict[str, Metric]:
    text = (directory / FILE).read_text()
    for name in ("HELP", "TYPE"):
        heads = [line.split()[2] for line in text.splitlines() if line.startswith(f"# {name} ")]
        assert len(heads) == len(set(heads))
    return collected([directory / FILE])


KINDS = {
    "quick": asked(3),
    "what decides nothing is no other kind": asked(3, benchmark_timeout_s=77),
    "offline": asked(3, {"name": "own", "scenario": "loadgen", "scenario_options": {"scenario": "Offline"}}),
    "engine": asked(3, {"engine": "simulated"}),
    "engine options": asked(3, {"engine": "simulated", "engine_options": {"ttft_ms": 1}}),
    "model": asked(3, benchmark_model="org/other"),
    "precision": asked(3, benchmark_dtype="bfloat16"),
    "length": asked(3, {"generation": {"max_new_tokens": 8}}),
}


def test_exports_of_unlike_runs_stand_beside_each_other(tmp_path: Path) -> None:
    files = []
    for number, of in enumerate(KINDS.values(), start=1):
        run_id = store(tmp_path / "results", number, {"jw2": 1800, "jw3": 2400}, of, failed=("jw4",))
        if number == 2:
            continue
        files.append(tmp_path / f"{number}.prom")
        words = ["export", str(tmp_path / "results" / run_id), "--format", "prometheus", "-o", str(files[-1])]
        assert main(words) == 0
    families = collected(files)
    assert len(values(families, "queries_per_second")) == 2 * (len(files) - 1)  # a run of LoadGen without its logs
    assert len(values(families, "run_valid")) == len(values(families, "node_counted")) == 3 * len(files)
    shown = {one[:3] for one in values(families, "node_counted", "profile", "model", "engine")}
    assert {
        ("quick", "org/other", "continuous"),
        ("own", KINDS["quick"].settings.benchmark_model, "continuous"),
    } <= shown
    # All of them in one file are the same series: each with the newest run of its kind.
    write_textfile(tmp_path, tmp_path / "results")
    merged = written(tmp_path)
    for name, family in families.items():
        if not name.endswith(("run_info", "created_timestamp_seconds")):
            assert {str(sorted(s.labels.items())) for s in family.samples} == {
                str(sorted(s.labels.items())) for s in merged[name].samples
            }
    quick = [one for one in values(merged, "run_info", "profile", "engine", "run_id", "model") if one[0] == "quick"]
    assert ("quick", "continuous", "20261102T100000Z-0123abcd", KINDS["quick"].settings.benchmark_model, 1.0) in quick


def test_the_newest_of_each_node_and_none_that_was_removed(tmp_path: Path) -> None:
    results, of = tmp_path / "results", KINDS["quick"]
    store(results, 1, {"old": 1000, "jw2": 1000, "jw3": 1000}, of, inventory=("old", *BOTH))
    store(results, 2, {"lab": 500}, of, inventory=("lab",))
    store(results, 3, {"jw3": 2000}, of, inventory=BOTH)  # --limit jw3
    write_textfile(tmp_path, results)
    families = written(tmp_path)
    # lab is in an inventory of its own; old was in that of jw2 and jw3, which no longer has it.
    assert slowest(families) == {(node, "continuous"): value for node, value in (("jw2", 1), ("jw3", 2), ("lab", 0.5))}
    # A node that fails keeps the series that say so, and no figure of an earlier run.
    store(results, 4, {}, of, inventory=BOTH, failed=("jw3",))
    # A run that goes on says nothing yet, and one that was interrupted nothing of the nodes that it stopped.
    stopped = results / store(results, 6, {}, of, inventory=BOTH, failed=("jw2",))
    keep_interruption(stopped, "SIGINT")
    write_record(stopped / RESULT_FILE, aggregate(stopped))
    (results / store(results, 5, {"jw2": 1000}, of, inventory=BOTH) / RESULT_FILE).unlink()
    write_textfile(tmp_path, results)
    families = written(tmp_path)
    assert values(families, "node_counted", "node") == [("jw2", 1), ("jw3", 0), ("lab", 1)]
    assert {node for node, _ in values(families, "queries_per_second", "node")} == {"jw2", "lab"}


def test_results_directories_share_the_file(tmp_path: Path) -> None:
    mine, theirs = tmp_path / 'mine "1"', tmp_path / "theirs"
    store(mine, 1, {"jw2": 1000, "jw3": 1000}, KINDS["quick"])
    store(theirs, 2, {"jw2": 2000}, KINDS["quick"])
    store(theirs, 3, {"jw2": 2500}, KINDS["engine"])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda results: write_textfile(tmp_path, results), [mine, theirs] * 4))
    both = {("jw2", "continuous"): 2.0, ("jw2", "simulated"): 2.5, ("jw3", "continuous"): 1.0}
    assert slowest(written(tmp_path)) == both
    store(mine, 4, {"jw2": 1500}, KINDS["quick"])
    write_textfile(tmp_path, mine)
    write_textfile(tmp_path, theirs)
    assert slowest(written(tmp_path)) == {**both, ("jw2", "continuous"): 1.5}
    # What a results directory wrote goes with it.
    shutil.rmtree(theirs)
    write_textfile(tmp_path, mine)
    assert slowest(written(tmp_path)) == {("jw2", "continuous"): 1.5, ("jw3", "continuous"): 1.0}


def test_the_exporter_may_read_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    run_dir = tmp_path / "results" / store(tmp_path / "results", 1, {"jw2": 1000}, KINDS["quick"])
    words = ["aggregate", str(run_dir), "--prometheus-dir"]
    before = os.umask(0o077)
    try:
        (tmp_path / "prom").mkdir()
        (tmp_path / "prom" / FILE).write_text("half a li")
        assert main([*words, str(tmp_path / "prom")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "prom" / FILE).stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "prom").iterdir()] == [FILE]
    assert len(written(tmp_path / "prom")) > 10


def test_a_directory_that_is_gone_costs_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = store(tmp_path / "results", 1, {"jw2": 1000}, KINDS["quick"])
    words = ["aggregate", str(tmp_path / "results" / run_id)]
    ended = main(words)
    capsys.readouterr()
    assert main([*words, "--prometheus-dir", str(tmp_path / "gone")]) == ended
    assert f"{tmp_path}/gone/{FILE}: cannot be written: No such file or directory." in capsys.readouterr().err
