"""A run of several repeats: one of them is the result, whole, on every node; each is held against its own samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmark.cluster.aggregate import aggregate, gather
from benchmark.cluster.comparison.side import load_side
from benchmark.cluster.export.tables import SAMPLE_HEADS, samples_of
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.report.page import render_report
from benchmark.files import rewrite_samples
from benchmark.records import ClusterResult, NodeResult
from benchmark.text.columns import WIDTH
from tests.unit.building import asked, closed_loop, make_run, often, result_of, write_node

QUERIES = 20


def repeated(run_dir: Path, node: str, each_ms: Sequence[float], **changes: Any) -> Path:
    """Write a node whose repeats took so many milliseconds per query; return its directory."""
    resolved = asked(QUERIES, benchmark_repeats=len(each_ms))
    first, *later = (closed_loop([latency_ms] * QUERIES) for latency_ms in each_ms)
    result = often(result_of(node, resolved, first), later)
    return write_node(run_dir, NodeResult.model_validate({**dict(result), **changes}), first, later)


def run_of(directory: Path, nodes: dict[str, Sequence[float]]) -> Path:
    (repeats,) = {len(each) for each in nodes.values()}
    run_dir = make_run(directory, dict.fromkeys(nodes, asked(QUERIES, benchmark_repeats=repeats)))
    for node, each_ms in nodes.items():
        repeated(run_dir, node, each_ms)
    return run_dir


def repeats_of(result: ClusterResult) -> Any:
    assert result.repeats is not None
    return result.repeats


def test_the_median_of_the_cluster_is_taken_and_never_a_mix(tmp_path: Path) -> None:
    # jw2's own median is its third repeat and jw3's its second; the cluster's is the first.
    run_dir = run_of(tmp_path, {"jw2": [1000, 100, 200], "jw3": [150, 400, 1000]})
    result = aggregate(run_dir)
    reported = repeats_of(result)
    assert (reported.chosen, reported.metric) == (1, "qps")
    assert [row.value for row in reported.rows] == [pytest.approx(v, rel=0.01) for v in (1 + 1 / 0.15, 12.5, 6)]


def test_every_figure_is_of_the_chosen_repeat(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, {"jw2": [100, 200, 300], "jw3": [110, 210, 310]})
    gathered = gather(run_dir)
    result = gathered.result
    assert repeats_of(result).chosen == 2
    assert [row.metrics.latency_ms.p50 for row in result.nodes if row.metrics and row.metrics.latency_ms] == [200, 210]
    (group,) = result.groups
    assert group.qps == pytest.approx(1 / 0.2 + 1 / 0.21, rel=0.01)
    assert group.latency_ms is not None
    assert group.latency_ms.max == 210
    assert result.overlap == repeats_of(result).rows[1].overlap
    assert [max(node.times.latency_ms) for node in gathered.nodes] == [200, 210]
    column = SAMPLE_HEADS.index("latency_ms")
    assert {row[column] for row in samples_of(gathered, run_dir).rows} == {200, 210}
    # Compared is what the run says of itself, also where one node of it is asked for.
    ((node,),) = load_side(tmp_path, "jw3").groups.values()
    assert node.metrics is not None
    assert node.metrics.latency_ms is not None
    assert node.metrics.latency_ms.p50 == 210


@given(st.data())
@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_clusters_rate_is_the_middle_one_of_its_repeats(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    count = data.draw(st.integers(2, 4))
    times = st.lists(st.integers(60, 2000), min_size=count, max_size=count)
    nodes = {name: data.draw(times) for name in ("a", "b")[: data.draw(st.integers(1, 2))]}
    result = aggregate(run_of(tmp_path_factory.mktemp("run"), dict(nodes)))
    reported = repeats_of(result)
    (group,) = result.groups
    assert group.qps == sorted(row.value for row in reported.rows)[(count - 1) // 2]
    assert group.qps == pytest.approx(sum(1000 / each[reported.chosen - 1] for each in nodes.values()), rel=0.01)
    (qps,) = (one for one in group.spread if one.metric == "qps")
    assert list(qps.values) == [row.value for row in reported.rows]


def test_a_figure_that_is_not_stable_says_so_beside_itself(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, {"jw2": [100, 100, 100], "jw3": [100, 120, 140]})
    gathered = gather(run_dir)
    text = render_cluster(gathered.result, gathered.run)
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    row = {name: next(line for line in lines if line.startswith(f"{name} ")) for name in ("jw2", "jw3")}
    assert "~" not in row["jw2"]
    assert "8.33~" in row["jw3"]
    words = " ".join(text.split())
    assert "3 with the model loaded once; all figures are of repeat 2, the median by QPS" in words
    assert "18.3 QPS (NOT STABLE: 17.1 to 20.0 over the repeats)" in words
    assert "the repeats differ by more than 5%" in words
    page = render_job_summary(Outcome(gathered.run, gathered.result))
    assert "Spread of the repeats" in page
    assert "all figures are of repeat 2" in page
    report = render_report(gathered, run_dir)
    assert "QPS went from 17.1 to 20.0. Also not stable over the repeats: tokens/s" in report
    assert "not stable" in report.split(">Repeats</h2>")[1]


def test_what_is_stable_has_no_mark(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, {"jw2": [100, 101, 102]})
    gathered = gather(run_dir)
    text = render_cluster(gathered.result, gathered.run)
    assert "~" not in text
    assert "NOT STABLE" not in text
    assert "Spread of the repeats" in text


def test_one_repeat_says_nothing_of_repeats(tmp_path: Path) -> None:
    gathered = gather(run_of(tmp_path, {"jw2": [100]}))
    assert gathered.result.repeats is None
    assert "epeat" not in render_cluster(gathered.result, gathered.run)
    assert "Spread of the repeats" not in render_job_summary(Outcome(gathered.run, gathered.result))


def test_the_verdict_is_the_chosen_repeats(tmp_path: Path) -> None:
    # Half a query per second is asked, and 90 % of that is enough.
    mostly_slow = aggregate(run_of(tmp_path / "slow", {"jw2": [100, 3000, 3000]}))
    mostly_fast = aggregate(run_of(tmp_path / "fast", {"jw2": [100, 100, 3000]}))
    assert (mostly_slow.verdict.valid, mostly_fast.verdict.valid) == (False, True)
    assert [row.valid for row in repeats_of(mostly_fast).rows] == [1, 1, 0]


def test_a_repeat_whose_samples_differ_refuses_the_node(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, {"jw2": [100, 100, 100], "jw3": [100, 100, 100]})
    path = run_dir / "nodes" / "jw3" / "repeat3_samples.jsonl"
    rewrite_samples(path, closed_loop([90] * QUERIES))
    result = aggregate(run_dir)
    jw2, jw3 = result.nodes
    assert (jw2.counted, jw3.status) == (True, "refused")
    assert "jw3, repeat 3: its metric" in jw3.reason
    path.unlink()
    assert "repeat3_samples.jsonl" in aggregate(run_dir).nodes[1].reason


def test_fewer_repeats_than_were_asked_refuse_the_node(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, {"jw2": asked(QUERIES, benchmark_repeats=3)})
    repeated(run_dir, "jw2", [100, 100, 100], repeats=())
    (row,) = aggregate(run_dir).nodes
    assert row.status == "refused"
    assert "1 repeats came back instead of 3" in row.reason


def test_a_node_that_broke_in_a_later_repeat_does_not_count(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path, dict.fromkeys(("jw2", "jw3"), asked(QUERIES, benchmark_repeats=3)))
    repeated(run_dir, "jw2", [100, 200, 300])
    repeated(run_dir, "jw3", [100, 200, 300], status="failed", stage="measuring", error="It broke.", repeats=())
    result = aggregate(run_dir)
    assert [row.counted for row in result.nodes] == [True, False]
    assert repeats_of(result).chosen == 2
    assert result.nodes[1].spread == ()
    assert "Failed while measuring, after 20 of 20 queries of the first repeat." in result.nodes[1].reason
