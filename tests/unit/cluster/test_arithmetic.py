"""The cluster's arithmetic, by hand and by property."""

import itertools
import json
import re
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.arithmetic import cluster_verdict, overlap
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.history import node_history
from benchmark.cluster.history.show import render_history
from benchmark.cluster.names import natural
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.cluster.stored.read import history_key
from benchmark.files import write_record
from benchmark.metrics import distribution
from benchmark.records import (
    ClusterResult,
    Energy,
    EngineInfo,
    NodeRow,
    Overlap,
    PrefixCache,
    ReadyNode,
    Serving,
    Telemetry,
    Verdict,
    Window,
)
from benchmark.rundir import RESULT_FILE
from benchmark.text.node_result import render_node
from tests.unit.building import GPU, HOST, RUN_ID, add_node, asked, make_run

LATENCIES = st.lists(st.integers(60, 5000).map(float), min_size=3, max_size=3)


def test_totals_by_hand(tmp_path: Path) -> None:
    four = HOST.model_copy(update={"gpus": tuple(GPU.model_copy(update={"index": i}) for i in range(4))})
    nodes = {"jw2": [1000.0, 1100.0, 1200.0], "jw3": [2000.0, 2100.0, 2200.0]}
    make_run(tmp_path, {node: asked(3) for node in nodes})
    for node, latencies in nodes.items():
        add_node(tmp_path, node, asked(3), latencies, environment=four)
    (group,) = aggregate(tmp_path).groups
    assert group.label == "NVIDIA A30, float16"
    assert group.qps == pytest.approx(3 / 3.2999 + 3 / 6.2999)
    assert group.tokens_per_s == pytest.approx(192 / 3.2999 + 192 / 6.2999)
    assert group.gpus == 2
    assert group.qps_per_gpu == pytest.approx((3 / 3.2999 + 3 / 6.2999) / 2)
    assert group.latency_ms == distribution([*nodes["jw2"], *nodes["jw3"]])
    assert (group.worst_p99_node, group.worst_p99_latency_ms) == ("jw3", 2200)
    assert group.queries.model_dump() == {"planned": 6, "completed": 6, "failed": 0, "unfinished": 0}


@settings(max_examples=15)
@given(st.lists(LATENCIES, min_size=2, max_size=4), st.data())
def test_the_order_of_the_nodes_changes_nothing(latencies: list[list[float]], data: st.DataObject) -> None:
    names = [f"n{i}" for i in range(len(latencies))]
    orders = [names, data.draw(st.permutations(names))]
    results = []
    for order in orders:
        with tempfile.TemporaryDirectory() as directory:
            run_dir = make_run(Path(directory), {name: asked(3) for name in order})
            for name in order:
                gpu = GPU.model_copy(update={"name": f"GPU {int(name[1:]) % 2}"})
                environment = HOST.model_copy(update={"gpus": (gpu,)})
                add_node(run_dir, name, asked(3), latencies[int(name[1:])], environment=environment)
            results.append(aggregate(run_dir).model_dump_json())
    assert results[0] == results[1]


SERVED: dict[str, Any] = {
    "model": "llama",
    "reported": {"dtype": "bfloat16", "revision": "abc", "quantization": "fp8"},
}


def served(run_dir: Path, **details: dict[str, Any]) -> ClusterResult:
    """Return the result of nodes whose servers report these details."""
    endpoint = asked(3, {"engine": "endpoint"})
    make_run(run_dir, dict.fromkeys(details, endpoint))
    for node, reported in details.items():
        add_node(run_dir, node, endpoint, [100.0] * 3, engine=EngineInfo(name="endpoint", details=reported))
    return aggregate(run_dir)


def test_servers_are_alike_in_what_they_report(tmp_path: Path) -> None:
    (group,) = served(tmp_path, jw2=SERVED, jw3=SERVED).groups
    assert group.label == "NVIDIA A30, bfloat16"
    facts = {name: group.key[name] for name in ("model", "dtype", "revision", "served")}
    assert facts == {"model": "llama", "dtype": "bfloat16", "revision": "abc", "served": "quantization fp8"}


def test_runs_that_reused_prompts_stand_apart(tmp_path: Path) -> None:
    """Where they may: by what their servers did, in groups and in what comparisons and histories go by."""
    allowed = asked(3, {"engine": "endpoint", "prefix_caching": True})
    caches = {"on": 40, "also-on": 7, "off": 0, "silent": None}
    make_run(tmp_path, dict.fromkeys(caches, allowed))
    for node, cached in caches.items():
        serving = Serving(prefix_cache=PrefixCache(cached_tokens=cached, prompt_tokens=90, source="its counters"))
        engine = EngineInfo(name="endpoint", details=SERVED)
        add_node(tmp_path, node, allowed, [100.0] * 3, engine=engine, serving=serving)
    result = aggregate(tmp_path)
    assert sorted(group.nodes for group in result.groups) == [("also-on", "on"), ("off",), ("silent",)]
    assert len({history_key(result.groups[row.group or 0], row) for row in result.nodes}) == 3
    assert len(load_side(tmp_path).groups) == 3
    # What may not reuse anything is told apart by nothing new: its history goes on.
    assert all("prefix_cache" not in group.key for group in served(tmp_path / "plain", jw2=SERVED).groups)


@pytest.mark.parametrize(
    ("other", "label"),
    [
        ({"model": "llama"}, "NVIDIA A30, precision not reported by the server, revision not reported by the server"),
        ({**SERVED, "model": "embed"}, "NVIDIA A30, bfloat16, embed"),
        (
            {**SERVED, "reported": {**SERVED["reported"], "quantization": "awq"}},
            "NVIDIA A30, bfloat16, quantization awq",
        ),
    ],
)
def test_unlike_servers_are_not_summed(other: dict[str, Any], label: str, tmp_path: Path) -> None:
    result = served(tmp_path, jw2=SERVED, jw3=other)
    assert len(result.groups) == 2
    assert label in [group.label for group in result.groups]
    assert "float16" not in json.dumps([group.key for group in result.groups]).replace("bfloat16", "")


def test_no_settings_are_shown_for_what_a_server_hides(tmp_path: Path) -> None:
    endpoint = asked(3, {"engine": "endpoint"})
    run_dir = make_run(tmp_path / "results" / RUN_ID, {"jw2": endpoint, "jw3": endpoint})
    add_node(run_dir, "jw2", endpoint, [100.0] * 3, engine=EngineInfo(name="endpoint", details={"model": "llama"}))
    gathered = gather(run_dir)
    write_record(run_dir / RESULT_FILE, gathered.result)
    side = load_side(tmp_path / "results" / RUN_ID)
    (node,) = (node.result for node in gathered.nodes if node.result)
    texts = [
        render_node(node),
        render_cluster(gathered.result, gathered.run),
        render_report(gathered, run_dir),
        render_history(node_history(tmp_path / "results")),
        " ".join(like.label for like in side.groups),
        render_node_table(gathered),
        "".join(prometheus_lines([whole(gathered.run, gathered.result)])),
    ]
    for text in texts:
        # What was asked for stands among the report's settings, and is marked there.
        shown = re.sub(r"[^ <>]+ \(no effect: the engine is endpoint\)", "", text)
        assert "float16" not in shown
        assert endpoint.settings.benchmark_model_revision[:12] not in shown
    for text in texts[:5]:
        assert "precision not reported by the server" in " ".join(text.split())


def test_the_cpu_has_no_average_per_gpu(tmp_path: Path) -> None:
    cpu = asked(3, benchmark_device="cpu")
    make_run(tmp_path, {"jw2": cpu})
    add_node(tmp_path, "jw2", cpu, [100.0] * 3)
    (group,) = aggregate(tmp_path).groups
    assert (group.gpus, group.qps_per_gpu, group.tokens_per_s_per_gpu) == (0, None, None)
    assert group.label == "CPU a CPU, float16"


def test_unlike_precisions_are_labelled_apart(tmp_path: Path) -> None:
    given = {"jw2": asked(3), "jw3": asked(3, benchmark_dtype="bfloat16"), "jw4": asked(3)}
    make_run(tmp_path, given)
    for node, resolved in given.items():
        add_node(tmp_path, node, resolved, [100.0] * 3)
    groups = aggregate(tmp_path).groups
    assert [(group.label, group.nodes) for group in groups] == [
        ("NVIDIA A30, bfloat16", ("jw3",)),
        ("NVIDIA A30, float16", ("jw2", "jw4")),
    ]


WINDOWS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=6)


@given(WINDOWS, st.randoms())
def test_overlap_against_counting_every_tick(spans: list[tuple[int, int]], random: Random) -> None:
    tick = 10**9
    windows = {f"n{i}": Window.of(start * tick, (start + length) * tick) for i, (start, length) in enumerate(spans)}
    open_at = [sum(s <= t < s + length for s, length in spans) for t in range(100)]
    starts = [start for start, _ in spans]
    seen = overlap(windows, {})
    assert seen == Overlap(
        together_s=open_at.count(len(spans)),
        any_s=sum(n > 0 for n in open_at),
        skew_ms=(max(starts) - min(starts)) * 1000,
    )
    names = list(windows)
    random.shuffle(names)
    assert overlap({name: windows[name] for name in names}, {}) == seen


def clock(node: str, offset_ns: int, uncertainty_ns: int = 0) -> ReadyNode:
    return ReadyNode(node=node, launched_unix_ns=0, offset_ns=offset_ns, uncertainty_ns=uncertainty_ns, round_trips=8)


@given(WINDOWS, st.data())
def test_measured_clocks_that_are_off_change_nothing(spans: list[tuple[int, int]], data: st.DataObject) -> None:
    tick = 10**9
    true = {
        f"n{i}": Window.of((start + 100) * tick, (start + length + 100) * tick)
        for i, (start, length) in enumerate(spans)
    }
    offsets = {node: data.draw(st.integers(-100 * tick, 100 * tick)) for node in true}
    reported = {
        node: Window.of(window.started_unix_ns + offsets[node], window.ended_unix_ns + offsets[node])
        for node, window in true.items()
    }
    right, corrected = overlap(true, {}), overlap(reported, {node: clock(node, offsets[node]) for node in true})
    assert right is not None
    assert corrected is not None
    assert corrected.uncertainty_ms == (0 if len(true) > 1 else None)
    assert corrected.model_copy(update={"uncertainty_ms": None}) == right


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6), st.floats(-1, 1)), min_size=2, max_size=6))
def test_the_skew_is_wrong_by_no_more_than_it_says(drawn: list[tuple[int, int, float]]) -> None:
    """Each node's offset is zero, and is measured wrong by a part of its uncertainty."""
    windows = {f"n{i}": Window.of(start + 10**9, start + 2 * 10**9) for i, (start, _, _) in enumerate(drawn)}
    clocks = {f"n{i}": clock(f"n{i}", int(most * part), most) for i, (_, most, part) in enumerate(drawn)}
    seen = overlap(windows, clocks)
    assert seen is not None
    assert seen.skew_ms is not None
    assert seen.uncertainty_ms is not None
    starts = [start for start, _, _ in drawn]
    assert abs(seen.skew_ms - (max(starts) - min(starts)) / 1e6) <= seen.uncertainty_ms + 1e-9


def test_the_two_least_certain_clocks_bound_the_skew() -> None:
    windows = {name: Window.of(10**9, 2 * 10**9) for name in "abc"}
    clocks = {name: clock(name, 0, ms * 10**6) for name, ms in zip("abc", (5, 2, 3), strict=True)}
    seen = overlap(windows, clocks)
    assert seen is not None
    assert seen.uncertainty_ms == 8


def test_one_unmeasured_clock_leaves_all_as_they_are() -> None:
    windows = {"a": Window.of(10**9, 2 * 10**9), "b": Window.of(10**9, 2 * 10**9)}
    seen = overlap(windows, {"a": clock("a", 5 * 10**8)})
    assert seen == Overlap(together_s=1, any_s=1, skew_ms=0)


def test_a_node_that_began_late_is_named() -> None:
    windows = {"a": Window.of(10**9, 9**10, 10**9), "b": Window.of(12 * 10**8, 9**10, 10**9)}
    seen = overlap(windows, {})
    assert seen is not None
    assert seen.late_ms == {"b": 200}


def test_no_window_no_overlap() -> None:
    assert overlap({}, {}) is None


def test_natural_order() -> None:
    names = ["jw10", "jw2", "a", "jw", "2", "jw2a", "10"]
    assert sorted(names, key=natural) == ["a", "jw", "jw2", "jw2a", "jw10", "2", "10"]


VALID, INVALID = Verdict(valid=True), Verdict(valid=False, reasons=("slow",))
STATES = {
    "valid": (True, VALID),
    "invalid": (True, INVALID),
    "failed": (False, None),
}


def row(node: str, state: str) -> NodeRow:
    counted, verdict = STATES[state]
    return NodeRow(node=node, status="complete" if counted else "failed", counted=counted, verdict=verdict)


@pytest.mark.parametrize("states", [*itertools.product(STATES, repeat=2)])
@pytest.mark.parametrize("together_s", [0.0, 0.0005, 20.0])
def test_the_cluster_is_valid_when_all_are(states: tuple[str, str], together_s: float) -> None:
    rows = [row(f"n{i}", state) for i, state in enumerate(states)]
    verdict = cluster_verdict(rows, Overlap(together_s=together_s, any_s=40))
    apart = "failed" not in states and together_s < 0.001
    assert verdict.valid is (set(states) == {"valid"} and not apart)
    assert len(verdict.reasons) == ("failed" in states) + ("invalid" in states) + apart
    assert all(check.passed for check in verdict.checks) is verdict.valid


@given(st.lists(st.sampled_from(["valid", "failed"]), min_size=1, max_size=12), st.integers(1, 14), st.booleans())
def test_enough_nodes_make_a_run_whatever_became_of_the_others(states: list[str], least: int, share: bool) -> None:
    rows = [row(f"n{i}", state) for i, state in enumerate(states)]
    percent = min(100, least * 8)
    verdict = cluster_verdict(rows, Overlap(together_s=9, any_s=9), (), f"{percent}%" if share else least)
    counted = states.count("valid")
    # In whole numbers, so that no rounding decides.
    enough = (counted > 0 and counted * 100 >= percent * len(states)) if share else counted >= least
    assert verdict.valid is enough
    assert all(check.passed for check in verdict.checks) is enough
    assert len(verdict.reasons) == (not enough)


def test_enough_nodes_do_not_excuse_an_invalid_one() -> None:
    rows = [row("a", "valid"), row("b", "invalid"), row("c", "failed")]
    verdict = cluster_verdict(rows, Overlap(together_s=9, any_s=9), (), 1)
    assert verdict.reasons == ("1 of 3 nodes is invalid: b.",)


def test_too_few_nodes_are_reported_with_what_was_asked() -> None:
    rows = [row(f"n{i}", "failed" if i else "valid") for i in range(4)]
    verdict = cluster_verdict(rows, None, (), "30%")
    assert verdict.reasons == ("3 of 4 nodes are not counted: n1, n2, n3; benchmark_min_nodes asks for 2.",)
    alone = cluster_verdict([row("a", "valid")], None, (), 2)
    assert alone.reasons == ("All nodes of the run are counted; benchmark_min_nodes asks for 2.",)


def test_one_node_alone_needs_no_overlap() -> None:
    assert cluster_verdict([row("n", "valid")], Overlap(together_s=0, any_s=0)).valid


def test_many_failed_nodes_are_named_shortly() -> None:
    verdict = cluster_verdict([row(f"n{i}", "failed") for i in range(200)], None)
    assert verdict.reasons == ("200 of 200 nodes are not counted: n0, n1, n2, n3, n4 and 195 more.",)


def watched(joules: float, window_s: float) -> Telemetry:
    energy = Energy(joules=joules, window_s=window_s, tokens_per_joule=3 * 64 / joules, joules_per_query=joules / 3)
    return Telemetry(ticks=2, interval_ms=100, cost_percent=0.5, energy=energy)


def test_the_clusters_energy_is_of_the_nodes_that_tell_theirs(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked(3) for node in ("jw2", "jw3", "jw4")})
    for node, joules in (("jw2", 600.0), ("jw3", 400.0), ("jw4", None)):
        reported = {} if joules is None else {"telemetry": watched(joules, 5.4)}
        add_node(tmp_path, node, asked(3), [1800.0] * 3, **reported)
    (group,) = aggregate(tmp_path).groups
    assert (group.energy_nodes, group.energy_joules) == (2, 1000)
    # Six queries of 64 tokens: jw4's are not divided by joules that it never told.
    assert group.tokens_per_joule == pytest.approx(6 * 64 / 1000)
    assert group.joules_per_query == pytest.approx(1000 / 6)


def test_without_a_counter_the_cluster_has_no_energy(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [1800.0] * 3)
    (group,) = aggregate(tmp_path).groups
    assert (group.energy_nodes, group.energy_joules, group.tokens_per_joule) == (0, None, None)
