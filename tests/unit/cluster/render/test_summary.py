"""The summary that people read."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.summary import render_cluster
from benchmark.files import write_record
from benchmark.metrics import distribution
from benchmark.records import (
    Accuracy,
    ClusterResult,
    EngineInfo,
    Failure,
    Group,
    Metrics,
    NodeRow,
    Overlap,
    PeakSearch,
    QueryCounts,
    ReadyNode,
    Rouge,
    RunRecord,
    Verdict,
    Window,
)
from benchmark.rundir import read_run
from benchmark.text.columns import WIDTH, columns
from tests.unit.building import HOST, MS, RUN_ID, START_NS, add_node, asked, make_run


def render(run_dir: Path) -> str:
    return render_cluster(aggregate(run_dir), read_run(run_dir))


def test_one_node_of_two(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [1700.0, 1800.0, 1900.0])
    failure = Failure(
        node="jw3", stage="preflight", reason="Not reachable: Nothing answers SSH.\nAnd the disk is full."
    )
    write_record(tmp_path / "nodes" / "jw3" / "failure.json", failure)
    assert render(tmp_path) == (
        """\
LLM inference benchmark: cluster summary
unverified, not an MLCommons submission

Run         20250102T030405Z-0123abcd
Created     2025-01-02 03:04:05 UTC
Profile     quick v4: a health check, not a capacity figure
Model       meta-llama/Llama-3.1-8B-Instruct@be673f326cab, float16, cuda
Nodes       1 of 2 counted

NVIDIA A30, float16: 1 node, 1 GPU

                          latency ms      TTFT ms TPOT ms
node          QPS   P50*  P90*  P99*   P50*  P99*    P50* tok/s  verdict
jw2          0.56   1800  1900  1900   50.0  50.0    27.8  35.6  valid
* of 3 samples: insufficient (P50: 11, P90: 64, P99: 662 needed at 99 %
  confidence)

Cluster     0.56 QPS, 35.6 tokens/s
Per GPU     0.56 QPS, 35.6 tokens/s on average
Queries     3 of 3 completed, 0 failed, 0 unfinished
Pooled P99  latency 1900 ms, TTFT 50.0 ms, TPOT 29.4 ms; of 3 samples:
            insufficient (P99: 662 needed at 99 % confidence)
Worst node  jw2: P99 latency 1900 ms

Not counted
  jw3       preflight: Not reachable: Nothing answers SSH. And the disk
            is full.

INVALID: 1 of 2 nodes is not counted: jw3.
"""
    )


def test_two_valid_nodes(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    for node in ("jw2", "jw3"):
        add_node(tmp_path, node, asked(3), [1700.0, 1800.0, 1900.0])
    text = render(tmp_path)
    assert "Nodes       2 of 2 counted" in text
    assert "5.4 s of 5.4 s (100%), started within 0.00 ms by their own clocks" in " ".join(text.split())
    assert "Cluster 1.11 QPS, 71.1 tokens/s (the sum over 2 nodes: a fleet figure)" in " ".join(text.split())
    assert text.endswith("\nVALID: every node of the run is counted and valid.\n")


def test_nodes_that_started_together_say_how_nearly(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3), "jw3": asked(3)})
    for node, offset_ms, late_ms in (("jw2", 0, 0), ("jw3", 5000, 412)):
        # The clock of jw3 is five seconds ahead, and it was told 412 ms too late.
        reported = START_NS + offset_ms * MS
        started = reported + late_ms * MS
        place = add_node(
            tmp_path, node, asked(3), [1700.0] * 3, window=Window.of(started, started + 5100 * MS, reported)
        )
        clock = ReadyNode(
            node=node, launched_unix_ns=0, offset_ns=offset_ms * MS, uncertainty_ns=MS // 2, round_trips=7
        )
        write_record(place / "ready.json", clock)
    text = " ".join(render(tmp_path).split())
    assert "together for 4.7 s of 5.5 s (85%), started within 412 ms (+- 1.00 ms)" in text
    assert "jw3 started 412 ms after the agreed time" in text


def test_a_run_that_lacks_a_node_and_has_enough_is_valid(tmp_path: Path) -> None:
    lenient = asked(3, benchmark_min_nodes="50%")
    make_run(tmp_path, {"jw2": lenient, "jw3": lenient})
    add_node(tmp_path, "jw2", lenient, [1700.0, 1800.0, 1900.0])
    text = render(tmp_path)
    assert "Not counted\n  jw3       No result came back." in text
    reported = (
        "VALID: 1 of 2 nodes are counted and valid, which is enough for benchmark_min_nodes; the others are listed"
    )
    assert reported in " ".join(text.split())


def test_an_invalid_node_is_listed_with_its_reasons(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [4000.0] * 3)
    text = render(tmp_path)
    assert "Invalid\n  jw2       QPS 0.25 is below the required 0.45.\n            P99 latency 4000 ms" in text
    assert text.endswith("INVALID: 1 of 1 node is invalid: jw2.\n")


def test_drift_is_listed_with_who_has_what(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked(3) for node in ("jw2", "jw3", "jw4")})
    for node, torch in (("jw2", "2.13.0"), ("jw3", "2.11.0"), ("jw4", "2.13.0")):
        add_node(
            tmp_path, node, asked(3), [1800.0] * 3, environment=HOST.model_copy(update={"packages": {"torch": torch}})
        )
    text = render(tmp_path)
    assert (
        "\n\nDrift: nodes with the same hardware differ\n  NVIDIA A30\n    packages.torch\n"
        "            2.13.0: jw2, jw4\n            2.11.0: jw3\n"
    ) in text
    assert "\nVALID" in text


def test_nothing_came_back(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    text = render(tmp_path)
    assert "Nodes       0 of 1 counted" in text
    assert "  jw2       No result came back." in text


def test_simulated_numbers_are_flagged(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    assert "SIMULATED" not in render(tmp_path)
    add_node(tmp_path, "jw2", asked(3), [100.0] * 3, engine=EngineInfo(name="sequential", simulated=True))
    assert "*** SIMULATED: no model was run." in render(tmp_path)


def test_each_group_has_its_table(tmp_path: Path) -> None:
    given = {"jw2": asked(3), "jw3": asked(3, benchmark_dtype="bfloat16")}
    make_run(tmp_path, given)
    for node, resolved in given.items():
        add_node(tmp_path, node, resolved, [100.0] * 3)
    text = render(tmp_path)
    assert text.count("Cluster     ") == 2
    assert "NVIDIA A30, bfloat16: 1 node, 1 GPU" in text
    assert "NVIDIA A30, float16: 1 node, 1 GPU" in text


def test_what_a_file_says_is_never_a_template(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    failure = Failure(node="jw2", stage="x", reason="{{ 7 * 7 }} {% for %}")
    write_record(tmp_path / "nodes" / "jw2" / "failure.json", failure)
    assert "{{ 7 * 7 }} {% for %}" in render(tmp_path)


# What JSON can hold: a lone surrogate it cannot.
ODD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
# From one query in a human life to what a 64-bit count of nanoseconds holds.
NUMBERS = st.one_of(st.just(0.0), st.floats(1e-10, 9e12), st.floats(1e-3, 5000))
RUN = RunRecord(run_id=RUN_ID, created_at="now", command="", versions={}, nodes={"n": asked(3)})


@st.composite
def clusters(draw: st.DrawFn) -> ClusterResult:
    """Draw a cluster's result with odd names, long reasons and extreme numbers."""
    names = draw(st.lists(ODD, min_size=1, max_size=6, unique=True))
    names += draw(st.sampled_from([[], ["a-node-with-a-name-of-forty-characters-01", "x" * 128]]))
    rows = []
    for name in names:
        spread = distribution(draw(st.lists(NUMBERS, max_size=3)))
        metrics = Metrics(
            queries=QueryCounts(planned=3, completed=3, failed=0, unfinished=0),
            qps=draw(st.one_of(st.none(), NUMBERS)),
            tokens_per_s=draw(NUMBERS),
            latency_ms=spread,
            ttft_ms=spread,
            tpot_ms=draw(st.sampled_from([spread, None])),
        )
        counted = draw(st.booleans())
        rows.append(
            NodeRow(
                node=name,
                status="complete" if counted else "failed",
                counted=counted,
                reason="\n".join(draw(st.lists(ODD, max_size=4))),
                metrics=metrics if counted else None,
                verdict=Verdict(valid=draw(st.booleans())) if counted else None,
            )
        )
    counted_names = tuple(row.node for row in rows if row.counted)
    group = Group(
        label=draw(ODD) * 4,
        key={},
        nodes=counted_names,
        gpus=draw(st.integers(0, 4000)),
        qps=draw(NUMBERS),
        tokens_per_s=None,
        qps_per_gpu=draw(NUMBERS),
        tokens_per_s_per_gpu=draw(NUMBERS),
        queries=QueryCounts(planned=10**9, completed=10**9, failed=0, unfinished=0),
        latency_ms=distribution([draw(NUMBERS)]),
        ttft_ms=None,
        tpot_ms=None,
        worst_p99_latency_ms=1.0,
        worst_p99_node=names[0],
    )
    return ClusterResult(
        run_id=draw(ODD),
        profile="quick",
        asked=len(rows),
        counted=len(counted_names),
        nodes=tuple(rows),
        groups=(group,) if counted_names else (),
        overlap=Overlap(
            together_s=draw(NUMBERS),
            any_s=draw(NUMBERS),
            skew_ms=draw(st.none() | NUMBERS),
            uncertainty_ms=draw(st.none() | NUMBERS),
            late_ms={name: draw(NUMBERS) for name in names},
        ),
        problems=tuple(draw(st.lists(ODD, max_size=3))),
        verdict=Verdict(valid=False, reasons=tuple(draw(st.lists(ODD, max_size=3)))),
    )


@given(clusters())
def test_the_summary_always_fits_and_cannot_steer_a_terminal(result: ClusterResult) -> None:
    for line in render_cluster(result, RUN).split("\n"):
        assert columns(line) <= WIDTH, line
        assert line.isprintable()


def test_two_hundred_nodes(tmp_path: Path) -> None:
    names = [f"gpu-{i:03}" for i in range(200)]
    make_run(tmp_path, {name: asked(3) for name in names})
    for name in names[:190]:
        add_node(tmp_path, name, asked(3), [1700.0, 1800.0, 1900.0])
    result = aggregate(tmp_path)
    assert result.groups[0].qps is not None
    assert math.isclose(result.groups[0].qps, 190 * 3 / 5.3999)
    lines = render_cluster(result, read_run(tmp_path)).splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert sum(line.endswith("  valid") for line in lines) == 190
    assert " ".join(lines[-2:]).endswith(
        "INVALID: 10 of 200 nodes are not counted: gpu-190, gpu-191, gpu-192, gpu-193, gpu-194 and 5 more."
    )


def test_accuracy_and_found_targets_stand_in_the_summary(tmp_path: Path) -> None:
    resolved = asked(3, {"accuracy": "with-performance"})
    rouge = Rouge(
        rouge1=38.7, rouge2=15.9, rougeL=24.4, rougeLsum=35.7, generated_characters=99, answers=3, references=3
    )
    peak = PeakSearch(target_qps=0.5, settled=True, probes=(), host_vars="benchmark_target_qps: 0.5")
    make_run(tmp_path, {"jw2": resolved})
    add_node(tmp_path, "jw2", resolved, [1700.0] * 3, accuracy=Accuracy(rouge=rouge), peak=peak)
    words = " ".join(render(tmp_path).split())
    assert "jw2: target found, for its host_vars: benchmark_target_qps: 0.5" in words
    assert (
        "jw2: ROUGE-1 38.7, ROUGE-2 15.9, ROUGE-L 24.4, ROUGE-Lsum 35.7; 3 answers to 3 prompts, 99 characters" in words
    )


def test_what_an_audit_came_to_stands_in_the_summary(tmp_path: Path) -> None:
    make_run(tmp_path, {"jw2": asked(3)})
    add_node(tmp_path, "jw2", asked(3), [1700.0] * 3)
    result = aggregate(tmp_path)
    row = result.nodes[0].model_copy(update={"audit": "TEST06 FAILED: 9 answers checked."})
    text = render_cluster(result.model_copy(update={"nodes": (row,)}), read_run(tmp_path))
    assert "jw2: TEST06 FAILED: 9 answers checked.\n\nCluster" in text


def test_a_slow_node_is_told_with_its_cause(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked(20) for node in ("jw2", "jw3", "jw4")})
    for node, latency in (("jw2", 1800.0), ("jw3", 1810.0), ("jw4", 2400.0)):
        seen = HOST.model_copy(update={"cpu_count": 2 if node == "jw4" else 8})
        add_node(tmp_path, node, asked(20), [latency] * 20, environment=seen)
    assert """\
Slow nodes
  jw4       QPS is 0.42, -25% against 0.55, the median of 2 like nodes
            also tokens/s 26.7 instead of 35.5 (-25%); P50 TPOT 37.3 ms
            instead of 27.9 ms (+34%)
            probable cause: CPU starvation
            The run may use 2 CPUs, 8 on like nodes.
""" in render(tmp_path)
    page = render_job_summary(Outcome(read_run(tmp_path), aggregate(tmp_path)))
    assert "| jw4 | QPS is 0.42, -25% against 0.55, the median of 2 like nodes" in page


def test_like_nodes_raise_no_finding(tmp_path: Path) -> None:
    make_run(tmp_path, {node: asked(20) for node in ("jw2", "jw3")})
    for node, latency in (("jw2", 1800.0), ("jw3", 1840.0)):
        add_node(tmp_path, node, asked(20), [latency] * 20)
    assert "Slow nodes" not in render(tmp_path)
