"""What is believed of a run's files, and what is not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark import files
from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.render.summary import render_cluster
from benchmark.errors import InputError
from benchmark.files import write_record
from benchmark.records import ClusterResult, DatasetInfo, EngineInfo, Failure, NodeRow, PrefixCache, Serving, Window
from benchmark.rundir import read_run
from tests.unit.building import HOST, RUN_ID, START_NS, add_node, asked, closed_loop, make_run, result_of, write_node

FAST = [1700.0, 1800.0, 1900.0]
SLOW = [2400.0, 2500.0, 2600.0]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of jw2 and jw3, both complete and valid."""
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    for node in ("jw2", "jw3"):
        add_node(tmp_path, node, asked(3), FAST)
    return tmp_path


def row(result: ClusterResult, node: str) -> NodeRow:
    return next(row for row in result.nodes if row.node == node)


def result_path(run_dir: Path, node: str) -> Path:
    (path,) = (run_dir / "nodes" / node).glob("mlperf_datacenter_*.json")
    return path


def change(run_dir: Path, node: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the node's result as JSON."""
    path = result_path(run_dir, node)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def assert_refused(run_dir: Path, node: str, said: str) -> None:
    """Refused by name, and the other node counts."""
    result = aggregate(run_dir)
    refused = row(result, node)
    assert (refused.status, refused.counted) == ("refused", False)
    assert said in refused.reason
    assert any(said in problem and node in problem for problem in result.problems)
    assert (result.asked, result.counted) == (2, 1)
    assert [other.node for other in result.nodes if other.counted] == [n for n in ("jw2", "jw3") if n != node]
    assert not result.verdict.valid


def test_a_complete_run(run_dir: Path) -> None:
    result = aggregate(run_dir)
    assert result.verdict.valid
    assert (result.asked, result.counted, result.problems) == (2, 2, ())
    assert result.run_id == RUN_ID
    (group,) = result.groups
    assert group.nodes == ("jw2", "jw3")
    assert row(result, "jw2").metrics == result_of("jw2", asked(3), closed_loop(FAST)).metrics


def test_an_invalid_node_counts_and_makes_the_cluster_invalid(run_dir: Path) -> None:
    for path in (run_dir / "nodes" / "jw3").iterdir():
        path.unlink()
    add_node(run_dir, "jw3", asked(3), SLOW)
    result = aggregate(run_dir)
    assert result.counted == 2
    assert row(result, "jw3").reason == "QPS 0.4 is below the required 0.45."
    assert result.verdict.reasons == ("1 of 2 nodes is invalid: jw3.",)


def test_a_node_may_speak_against_itself(run_dir: Path) -> None:
    change(run_dir, "jw2", lambda r: r["verdict"].update(valid=False, reasons=["LoadGen says INVALID."]))
    result = aggregate(run_dir)
    assert row(result, "jw2").counted
    assert row(result, "jw2").reason == "LoadGen says INVALID."


def test_the_words_of_a_reason_are_free(run_dir: Path) -> None:
    """They may differ between versions of the program; a result must not be refused for that."""
    change(run_dir, "jw2", lambda r: [check.update(note="other words") for check in r["verdict"]["checks"]])
    assert aggregate(run_dir).counted == 2


CLAIMS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda r: r["metrics"].update(qps=9.9), "its metric qps is 9.9, but its samples give"),
    (lambda r: r["metrics"]["latency_ms"].update(p99=1.0), "its metric latency_ms.p99 is 1.0"),
    (lambda r: r["metrics"]["queries"].update(failed=1), "its metric queries.failed is 1"),
    (lambda r: r["metrics"].update(tpot_ms=None), "its metric tpot_ms is None"),
    (lambda r: r["verdict"].update(valid=False), "it claims to be invalid, but by its samples it is valid"),
    (lambda r: r["verdict"].update(reasons=["slow"]), "it claims to be valid"),
    (lambda r: r["verdict"]["checks"].pop(), "its verdict's checks differ"),
    (lambda r: r["verdict"]["checks"][2].update(limit=0.1), "check 2.limit is 0.1, not 0.45"),
    (lambda r: r["engine"].update(replicas=2), "it claims 2 replicas on 1 GPUs"),
    (lambda r: r["engine"].update(name="simulated"), "the engine simulated answered instead of continuous"),
    (lambda r: r.update(window=None, dataset=None), "has no dataset and no window"),
    (lambda r: r["window"].update(ended_unix_ns=START_NS), "extend beyond its measuring window"),
    (lambda r: r["resolved"]["settings"].update(benchmark_target_qps=0.1), "settings.benchmark_target_qps is 0.1"),
    (lambda r: r["resolved"]["profile"].update(samples=4), "other settings than the run's: profile.samples is 4"),
    (lambda r: r.update(run_id="20240101T000000Z-aaaaaaaa"), "it belongs to the run 20240101T000000Z-aaaaaaaa"),
    (lambda r: r.update(node="jw9"), "it is the result of jw9, not of jw2"),
    (lambda r: r.update(schema_version=2), "schema_version 2 is unknown to this program"),
    (lambda r: r.update(surprise=1), "not a NodeResult: surprise"),
    (lambda r: r["metrics"].update(qps="fast"), "not a NodeResult: metrics.qps"),
]


@pytest.mark.parametrize(("edit", "said"), CLAIMS)
def test_a_claim_that_the_samples_do_not_give_is_refused(
    run_dir: Path, edit: Callable[[dict[str, Any]], Any], said: str
) -> None:
    change(run_dir, "jw2", edit)
    assert_refused(run_dir, "jw2", said)


def test_a_valid_verdict_over_invalid_samples_is_refused(run_dir: Path) -> None:
    """All checks copied from a fast node, the metrics honest."""
    checks = json.loads(result_path(run_dir, "jw3").read_text())["verdict"]
    for path in (run_dir / "nodes" / "jw2").iterdir():
        path.unlink()
    add_node(run_dir, "jw2", asked(3), SLOW)
    change(run_dir, "jw2", lambda r: r.update(verdict=checks))
    assert_refused(run_dir, "jw2", "its verdict's checks differ from those of its samples")
    change(run_dir, "jw2", lambda r: r.update(verdict={**r["verdict"], "checks": []}))
    assert_refused(run_dir, "jw2", "its verdict's checks differ")


def test_cached_tokens_that_the_samples_have_cannot_be_left_out(run_dir: Path) -> None:
    cached = [one.model_copy(update={"cached_tokens": 16}) for one in closed_loop(FAST)]
    cache = PrefixCache(cached_tokens=0, prompt_tokens=90, source="a counter")
    for path in (run_dir / "nodes" / "jw2").iterdir():
        path.unlink()
    write_node(run_dir, result_of("jw2", asked(3), cached, serving=Serving(prefix_cache=cache)), cached)
    assert_refused(run_dir, "jw2", "it claims 0 prompt tokens from a prefix cache, but its samples have 48")


def samples_path(run_dir: Path) -> Path:
    return run_dir / "nodes" / "jw2" / "samples.jsonl"


def test_a_lost_sample_is_noticed(run_dir: Path) -> None:
    lines = samples_path(run_dir).read_text().splitlines(keepends=True)
    samples_path(run_dir).write_text("".join(lines[:2]))
    assert_refused(run_dir, "jw2", "its samples give")


def test_damaged_files_are_named(run_dir: Path) -> None:
    path = result_path(run_dir, "jw2")
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert_refused(run_dir, "jw2", f"nodes/jw2/{path.name}: not JSON; the file is truncated or damaged")
    path.write_bytes(whole)
    good = samples_path(run_dir).read_bytes()
    samples_path(run_dir).write_bytes(b"?\n" + good)
    assert_refused(run_dir, "jw2", "nodes/jw2/samples.jsonl, line 1: not a sample")
    samples_path(run_dir).write_bytes(good + good)
    assert_refused(run_dir, "jw2", "samples.jsonl: two samples have the same index")
    samples_path(run_dir).unlink()
    assert_refused(run_dir, "jw2", "nodes/jw2/samples.jsonl: No such file or directory")


def test_an_oversized_file_is_named(run_dir: Path) -> None:
    with result_path(run_dir, "jw2").open("ab") as file:
        file.truncate(files.MAX_RESULT_BYTES + 1)
    assert_refused(run_dir, "jw2", "larger than 16 MiB")


def test_links_and_pipes_are_not_followed(run_dir: Path) -> None:
    path = samples_path(run_dir)
    path.unlink()
    path.symlink_to(run_dir / "nodes" / "jw3" / "samples.jsonl")
    assert_refused(run_dir, "jw2", "samples.jsonl: a symbolic link; refused")
    path.unlink()
    os.mkfifo(path)
    assert_refused(run_dir, "jw2", "samples.jsonl: not a regular file; refused")
    path.unlink()
    directory = path.parent
    directory.rename(run_dir / "elsewhere")
    directory.symlink_to(run_dir / "elsewhere")
    assert_refused(run_dir, "jw2", "nodes/jw2: a symbolic link; refused")


def test_two_results_of_one_node_are_refused(run_dir: Path) -> None:
    path = result_path(run_dir, "jw2")
    path.with_name("mlperf_datacenter_jw2_20260101T000000Z.json").write_bytes(path.read_bytes())
    assert_refused(run_dir, "jw2", "more than one result")


def test_a_stranger_is_passed_over_by_name(run_dir: Path) -> None:
    add_node(run_dir, "jw4", asked(3), FAST)
    result = aggregate(run_dir)
    assert result.problems == ("nodes/jw4: the run has no node of this name; ignored.",)
    assert result.counted == 2
    assert result.verdict.valid


def empty(run_dir: Path, node: str) -> None:
    for path in (run_dir / "nodes" / node).iterdir():
        path.unlink()


def test_a_node_without_a_result(run_dir: Path) -> None:
    empty(run_dir, "jw2")
    missing = row(aggregate(run_dir), "jw2")
    assert (missing.status, missing.reason) == ("missing", "No result came back.")
    write_record(
        run_dir / "nodes" / "jw2" / "failure.json", Failure(node="jw2", stage="preflight", reason="Not reachable.")
    )
    result = aggregate(run_dir)
    assert (row(result, "jw2").status, row(result, "jw2").reason) == ("failed", "preflight: Not reachable.")
    assert result.verdict.reasons == ("1 of 2 nodes is not counted: jw2.",)
    (run_dir / "nodes" / "jw2" / "failure.json").write_text("{")
    result = aggregate(run_dir)
    assert row(result, "jw2").status == "missing"
    assert "failure.json: not JSON" in result.problems[0]


def test_a_directory_that_is_not_there_is_a_missing_node(run_dir: Path) -> None:
    empty(run_dir, "jw2")
    (run_dir / "nodes" / "jw2").rmdir()
    assert row(aggregate(run_dir), "jw2").status == "missing"


def test_an_interrupted_node_is_listed_with_what_it_completed(run_dir: Path) -> None:
    empty(run_dir, "jw2")
    samples = closed_loop([1700.0, 1800.0])
    begun = Window(started_unix_ns=START_NS, ended_unix_ns=START_NS)
    # A killed process leaves the result as it was when measuring began.
    result = result_of("jw2", asked(3), samples, status="interrupted", stage="measuring", metrics=None, verdict=None)
    write_node(run_dir, result.model_copy(update={"window": begun}), samples)
    killed = Failure(node="jw2", stage="benchmark", reason="The benchmark was killed (signal 9).")
    write_record(run_dir / "nodes" / "jw2" / "failure.json", killed)
    with samples_path(run_dir).open("ab") as file:
        file.write(b'{"index": 2, "prom')
    cluster = aggregate(run_dir)
    stopped = row(cluster, "jw2")
    assert (stopped.status, stopped.counted, stopped.group) == ("interrupted", False, None)
    assert stopped.reason == (
        "Interrupted while measuring, after 2 of 3 queries.\nbenchmark: The benchmark was killed (signal 9)."
    )
    assert stopped.metrics is not None
    assert stopped.metrics.queries.completed == 2
    assert cluster.groups[0].nodes == ("jw3",)


def test_a_node_that_failed_before_measuring(run_dir: Path) -> None:
    empty(run_dir, "jw2")
    result = result_of(
        "jw2", asked(3), [], status="failed", stage="loading", metrics=None, verdict=None, error="No GPU."
    )
    write_record(run_dir / "nodes" / "jw2" / "mlperf_datacenter_jw2_1.json", result)
    failed = row(aggregate(run_dir), "jw2")
    assert (failed.status, failed.reason) == ("failed", "Failed while loading, after 0 of 3 queries.\nNo GPU.")


def test_a_complete_result_counts_whatever_failed_after_it(run_dir: Path) -> None:
    write_record(run_dir / "nodes" / "jw2" / "failure.json", Failure(node="jw2", stage="fetch", reason="No log."))
    result = aggregate(run_dir)
    assert result.counted == 2
    assert result.problems == ("jw2: its result is complete and counted, though it failed: fetch: No log.",)


def test_nothing_is_written(run_dir: Path) -> None:
    change(run_dir, "jw2", lambda r: r.update(run_id="other"))
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    aggregate(run_dir)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("field", ["engine", "dataset"])
def test_unlike_nodes_are_not_summed(run_dir: Path, field: str) -> None:
    empty(run_dir, "jw3")
    other: Any = {
        "engine": EngineInfo(name="sequential", simulated=True),
        "dataset": DatasetInfo(name="curated", prompts=20, sha256="cd" * 32),
    }
    add_node(run_dir, "jw3", asked(3), FAST, **{field: other[field]})
    result = aggregate(run_dir)
    assert [group.nodes for group in result.groups] == [("jw2",), ("jw3",)]
    assert result.groups[0].label != result.groups[1].label


@pytest.mark.parametrize("name", ["../jw3", "", "a/b"])
def test_a_run_file_with_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    content = json.loads((tmp_path / "run.json").read_text())
    content["nodes"] = {name: content["nodes"]["jw2"]}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        aggregate(tmp_path)


def test_a_directory_that_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run: it has no run\.json"):
        aggregate(tmp_path)


OTHER_DRIVER = HOST.model_copy(update={"driver": "535"})


@pytest.mark.parametrize(
    ("policy", "valid", "facts"), [("warn", True, ["driver"]), ("fail", False, ["driver"]), ("ignore", True, [])]
)
def test_what_drift_means_is_a_setting(tmp_path: Path, policy: str, valid: bool, facts: list[str]) -> None:
    settings = asked(3, benchmark_drift=policy)
    make_run(tmp_path, {"jw2": settings, "jw3": settings})
    add_node(tmp_path, "jw2", settings, FAST, environment=HOST.model_copy(update={"driver": "550"}))
    add_node(tmp_path, "jw3", settings, FAST, environment=OTHER_DRIVER)
    result = aggregate(tmp_path)
    assert result.verdict.valid is valid
    assert [one.fact for one in result.drift] == facts
    reported = "Drift: Nodes with the same hardware (NVIDIA A30) differ in driver: 535 (jw3), 550 (jw2)."
    assert result.verdict.reasons == (() if valid else (reported,))
    checked = [check.passed for check in result.verdict.checks if "same hardware differ" in check.metric]
    assert checked == ([False] if policy == "fail" else [])


def test_a_failed_node_is_compared_and_a_refused_one_is_not(tmp_path: Path) -> None:
    make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), asked(3)))
    add_node(tmp_path, "jw2", asked(3), FAST, environment=HOST.model_copy(update={"driver": "550"}))
    add_node(tmp_path, "jw3", asked(3), FAST, environment=OTHER_DRIVER, status="failed", stage="measuring")
    assert [one.fact for one in aggregate(tmp_path).drift] == ["driver"]
    change(tmp_path, "jw3", lambda content: content.update(run_id="another"))
    assert aggregate(tmp_path).drift == ()


def use_energy(run_dir: Path, **changes: Any) -> None:
    """Give jw2's result an energy that its samples allow, with something changed."""
    right = {"joules": 1000.0, "window_s": 5.4, "tokens_per_joule": 0.192, "joules_per_query": 1000 / 3}
    telemetry = {"ticks": 50, "interval_ms": 100.0, "cost_percent": 0.5, "energy": {**right, **changes}}
    change(run_dir, "jw2", lambda content: content.update(telemetry=telemetry))


def test_energy_that_the_samples_allow_is_believed(run_dir: Path) -> None:
    use_energy(run_dir)
    assert aggregate(run_dir).groups[0].energy_joules == 1000
    text = " ".join(render_cluster(aggregate(run_dir), read_run(run_dir)).split())
    assert "Energy 1000 J, 0.19 tokens/J, 333 J/query of 1 of 2 nodes, by the GPUs' own counters, not the wall" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"joules": -1.0, "tokens_per_joule": None, "joules_per_query": -1 / 3},
        {"joules": 1e308},
        {"window_s": 54.0},
        {"tokens_per_joule": 19.2},
        {"joules_per_query": 1.0},
    ],
)
def test_energy_that_cannot_be_is_refused(run_dir: Path, wrong: dict[str, Any]) -> None:
    use_energy(run_dir, **wrong)
    assert_refused(run_dir, "jw2", " J" if "joules" in wrong or "window_s" in wrong else "its joules and samples give")
