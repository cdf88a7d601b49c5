"""Groups of nodes that serve one copy of a model: whether they can, who does what, and what their files come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.groups import gpus_of_part, group_problems, groups_of, parts_of
from benchmark.cluster.report.page import render_report
from benchmark.cluster.resume import remaining, settings_to_resume
from benchmark.cluster.stored.read import read_stored
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.metrics import per_joule
from benchmark.provisioned import ENGINES
from benchmark.records import Energy, EngineInfo, Failure, GpuTelemetry, NodeResult, ServedWindow, Telemetry
from benchmark.resolve import resolve, resolve_nodes
from benchmark.rundir import FAILURE, NODES, read_run
from benchmark.settings import ResolvedSettings
from benchmark.verdict import Findings, judge
from tests.unit.building import GPU, HOST, TARGET_QPS, asked, closed_loop, make_run, result_of, write_node

GROUP: dict[str, Any] = {
    "benchmark_engine": "vllm",
    "benchmark_group": "a",
    "benchmark_engine_options": {"tensor_parallel_size": 8, "pipeline_parallel_size": 2},
}
HOSTS = {"jw2": "10.0.0.2", "jw3": "10.0.0.3", "jw4": "10.0.0.4"}


def nodes(**others: Any) -> dict[str, ResolvedSettings]:
    """Return a group of two nodes and one by itself; `others`: what the second has otherwise."""
    alone = {name: value for name, value in GROUP.items() if name != "benchmark_group"}
    return resolve_nodes({"jw3": dict(GROUP), "jw2": {**GROUP, **others}, "jw4": alone})


def test_the_first_of_the_inventory_is_the_head() -> None:
    resolved = nodes(benchmark_serve_address="fd00::2")
    assert list(group_problems(resolved, HOSTS)) == []
    assert groups_of(resolved) == {"a": ("jw3", "jw2")}
    parts = parts_of(resolved, HOSTS)
    assert sorted(parts) == ["jw2", "jw3"]
    head, other = parts["jw3"], parts["jw2"]
    assert (head.leads, other.leads, other.head.node, other.own.host) == (True, False, "jw3", "fd00::2")
    assert [gpus_of_part(ENGINES["vllm"], resolved[node], resolved) for node in ("jw2", "jw4")] == [8, 16]
    # Where --limit leaves the other out, it has its share all the same.
    alone = {"jw2": resolved["jw2"]}
    assert gpus_of_part(ENGINES["vllm"], resolved["jw2"], alone, {"jw3": "a", "jw4": None}) == 8


@pytest.mark.parametrize(
    ("second", "hosts", "problem"),
    [
        ({"benchmark_dtype": "bfloat16"}, HOSTS, "benchmark_dtype differs within the group a [jw3, jw2]"),
        ({"benchmark_serve_address": "fe80::2"}, HOSTS, "jw2 would be reached at fe80::2, which means something else"),
        ({}, {"jw2": "login", "jw3": "login"}, "[jw3, jw2] have the same address, login port 8000"),
        ({"benchmark_group": "jw4"}, HOSTS, "The group jw4 has one node, jw2, and needs two or more"),
    ],
)
def test_nodes_that_are_no_group(second: dict[str, Any], hosts: dict[str, str], problem: str) -> None:
    assert problem in "\n".join(group_problems(nodes(**second), hosts))


def test_names_and_sizes_that_do_not_fit() -> None:
    named = resolve_nodes({name: {**GROUP, "benchmark_group": "jw2"} for name in ("jw2", "jw3")})
    assert "a node has this name too" in "\n".join(group_problems(named, HOSTS))
    three = resolve_nodes({name: dict(GROUP) for name in HOSTS})
    (found,) = group_problems(three, HOSTS)
    assert found.startswith("The group a has 3 nodes, and one copy of the model uses 16 GPUs")
    assert "pipeline_parallel_size: 3" in found


def test_a_group_is_never_split() -> None:
    """Two of four nodes could be a copy too: over half the GPUs."""
    four = {**GROUP, "benchmark_engine_options": {"tensor_parallel_size": 8, "pipeline_parallel_size": 4}}
    half = resolve_nodes({name: dict(four) for name in ("jw2", "jw3")})
    assert list(group_problems(half, HOSTS)) == []
    assert list(group_problems(half, HOSTS, {"jw4": "b", "jw5": None})) == []
    (found,) = group_problems(half, HOSTS, {"jw4": "a", "jw5": "a"})
    assert found.startswith("--limit splits the group a: it names jw2, jw3 and leaves out jw4, jw5.")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"benchmark_engine": "continuous", "benchmark_engine_options": {}}, "does not spread a model over nodes"),
        ({"benchmark_system": "cluster"}, "benchmark_system is cluster, whose nodes have a copy each"),
        ({"benchmark_replicas": 16}, "leave benchmark_replicas at auto"),
        ({"benchmark_profile": "sweep"}, "is a sweep"),
        ({"benchmark_accuracy": "only"}, "measures no queries"),
        ({"benchmark_solo_first": True}, "leave benchmark_solo_first"),
        ({"benchmark_sync_start": False}, "leave benchmark_sync_start at true"),
        ({"benchmark_group": "a/b"}, "benchmark_group"),
    ],
)
def test_what_a_group_cannot_be(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve({"benchmark_profile": "mlperf-server", **GROUP, **changes})
    assert problem in str(caught.value)


def make(directory: Path, dead: str = "", gpus: int = 2) -> Path:
    """Write a run of a group of two nodes with one GPU each; the node `dead` was killed in the middle."""
    resolved = {
        name: asked(**{**GROUP, "benchmark_engine_options": {"pipeline_parallel_size": 2}}) for name in ("jw2", "jw3")
    }
    run_dir = make_run(directory, resolved)
    samples = closed_loop([500] * 20)
    whole = result_of("jw2", resolved["jw2"], samples)
    assert whole.window is not None
    measured = whole.metrics
    assert measured is not None
    for number, (name, one) in enumerate(resolved.items()):
        joules = 1000.0 * (number + 1)
        telemetry = Telemetry(
            ticks=9,
            interval_ms=100,
            cost_percent=1,
            gpus=(GpuTelemetry(index=0, power_w=100 * (number + 1)),),
            energy=Energy(
                joules=joules, window_s=10, idle_w=50, **(per_joule(joules, [measured]) if not number else {})
            ),
        )
        engine = EngineInfo(name="vllm", replicas=1 if number else gpus)
        changes: dict[str, Any] = {"environment": HOST.model_copy(update={"gpus": (GPU,)}), "engine": engine}
        if number == 0:
            target = TARGET_QPS * gpus
            verdict = judge(one.profile, Findings(measured), target, "complete")
            changes |= {"telemetry": telemetry, "target_qps": target, "verdict": verdict}
        else:
            watched = ServedWindow(window=whole.window, telemetry=telemetry)
            changes |= {"metrics": None, "verdict": None, "window": None, "served": (watched,)}
        if dead:
            changes |= {"status": "failed", "error": "The server ended." if name != dead else "vLLM was killed."}
        write_node(run_dir, result_of(name, one, samples if number == 0 else (), **changes), samples)
        if number:
            (run_dir / NODES / name / "samples.jsonl").unlink()
        if dead:
            reason = "vLLM was killed."
            reason = reason if name == dead else f"{dead}, another node of its group a, failed: {reason}"
            write_record(run_dir / NODES / name / FAILURE, Failure(node=name, stage="benchmark", reason=reason))
    return run_dir


def test_a_group_is_one_row(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run")
    gathered = gather(run_dir)
    result = gathered.result
    assert result.problems == ()
    (row,), (group,) = result.nodes, result.groups
    assert (row.node, row.members, row.counted, row.gpus) == ("a", ("jw2", "jw3"), True, 2)
    assert (result.asked, result.counted, group.nodes, group.gpus) == (1, 1, ("a",), 2)
    assert row.energy is not None
    assert row.metrics is not None
    assert (row.energy.joules, row.energy.idle_w) == (3000.0, 100.0)
    assert row.energy.tokens_per_joule == row.metrics.output_tokens / 3000
    page = render_report(gathered, run_dir, "")
    assert ("completed queries, of one group" in page, "One group was measured" in page, "one node" in page) == (
        True,
        True,
        False,
    )
    (node,) = gathered.nodes
    assert node.result is not None
    assert node.result.environment is not None
    assert node.result.telemetry is not None
    assert [gpu.index for gpu in node.result.environment.gpus] == [0, 1]
    assert [(gpu.index, gpu.power_w) for gpu in node.result.telemetry.gpus] == [(0, 100), (1, 200)]
    assert node.directory == "jw2"


def test_one_that_was_not_watched_takes_the_energy_with_it(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run")
    (path,) = (run_dir / NODES / "jw3").glob("mlperf_*.json")
    whole = read_record(path, NodeResult)
    unwatched = whole.served[0].model_copy(update={"telemetry": None})
    write_record(path, whole.model_copy(update={"served": (unwatched,)}))
    gathered = gather(run_dir)
    (row,) = gathered.result.nodes
    assert (row.counted, row.energy) == (True, None)
    (node,) = gathered.nodes
    assert node.result is not None
    assert node.result.telemetry is not None
    assert node.result.telemetry.note == "not all nodes of the group were monitored."


def test_a_file_that_is_not_believed_takes_the_group_with_it(tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run")
    (path,) = (run_dir / NODES / "jw3").glob("mlperf_*.json")
    path.write_text(path.read_text()[:-20])
    (row,) = gather(run_dir).result.nodes
    assert not row.counted
    assert "jw3: Refused: " in row.reason


def test_more_gpus_than_there_are_are_not_believed(tmp_path: Path) -> None:
    (row,) = gather(make(tmp_path / "run", gpus=3)).result.nodes
    assert (row.counted, row.reason) == (False, "Refused: its head claims 3 replicas on 2 GPUs.")


@pytest.mark.parametrize("dead", ["jw2", "jw3"])
def test_the_row_says_who_died(dead: str, tmp_path: Path) -> None:
    (row,) = gather(make(tmp_path / "run", dead)).result.nodes
    assert not row.counted
    assert row.reason.splitlines()[1:] == [f"benchmark: {dead}: vLLM was killed."]


def test_it_is_compared_and_listed_by_its_name(tmp_path: Path) -> None:
    results = tmp_path / "results"
    run_dir = make(results / "20250102T030405Z-0123abcd")
    gathered = gather(run_dir)
    write_record(run_dir / "aggregated_datacenter_results.json", gathered.result)
    assert load_side(run_dir, "a").name.endswith("/a")
    assert compare(load_side(run_dir), load_side(run_dir)) is not None
    with pytest.raises(InputError, match="has no node jw2; it has a"):
        load_side(run_dir, "jw2")
    stored = read_stored(results, run_dir.name)
    assert list(stored["nodes"]) == ["a"]


@pytest.mark.parametrize(("dead", "left"), [("", ()), ("jw3", ("jw2", "jw3"))])
def test_a_group_is_resumed_whole_or_not_at_all(dead: str, left: tuple[str, ...], tmp_path: Path) -> None:
    run_dir = make(tmp_path / "run", dead)
    run = read_run(run_dir)
    found = remaining(run_dir, run, ["jw2", "jw3"], ["jw2", "jw3"])
    assert (found.todo, found.notes) == (left, ())
    if not dead:
        assert remaining(run_dir, run, ["jw2"], ["jw2", "jw3"]).done == ("jw2",)
        return
    with pytest.raises(
        InputError, match=rf"the group a of the run {run.run_id} is measured as a whole, and its jw3 is"
    ):
        remaining(run_dir, run, ["jw2"], ["jw2", "jw3"])
    with pytest.raises(InputError, match=r"benchmark_group is 'a' on a node that is new to the run.*\[jw4\]"):
        settings_to_resume(run, {"jw4": dict(GROUP)}, ())
