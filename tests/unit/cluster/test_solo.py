"""Who loses by measuring together: more than two measurements of one node differ by."""

import random

from hypothesis import given
from hypothesis import strategies as st

from benchmark.cluster.solo import losers, solo_table
from benchmark.records import ClusterResult, NodeRow, SoloChange, Verdict


def row(node: str, alone: float, together: float, metric: str = "qps", rate: str = "") -> NodeRow:
    reported = SoloChange(metric=metric, alone=alone, together=together, change=together / alone - 1)
    return NodeRow(node=node, status="complete", counted=True, solo=(reported,), rate=rate)


@given(st.integers(1, 200), st.floats(0.01, 1e6))
def test_a_node_that_loses_a_fifth_is_named_not_one_that_gains(count: int, qps: float) -> None:
    rows = [row(f"n{number}", qps, qps * (1 if number else 0.8)) for number in range(count)]
    assert [node for node, _ in losers(rows)] == ["n0"]
    assert losers([row("n0", qps, qps * 1.5)]) == []


def test_nodes_that_lose_nothing_are_seldom_named() -> None:
    chance = random.Random(20261124)
    named = 0
    for _ in range(1000):
        rows = [row(f"n{number}", chance.gauss(1, 0.02), chance.gauss(1, 0.02)) for number in range(20)]
        named += bool(losers(rows))
    assert named < 10


def test_where_a_schedule_sets_the_rate_nobody_is_named() -> None:
    assert losers([row("n0", 1, 0.5, rate="2")]) == []
    assert losers([row("n0", 100, 200, metric="latency_ms.p99")]) == []
    assert losers([NodeRow(node="n1", status="failed", counted=False)]) == []


def test_what_is_undefined_has_no_change() -> None:
    nodes = (row("n0", 2, 1.5), row("n1", 100, 150, metric="latency_ms.p99"))
    result = ClusterResult(
        run_id="r", profile="p", asked=2, counted=2, nodes=nodes, groups=(), overlap=None, verdict=Verdict(valid=True)
    )
    first, second = solo_table(result)
    assert (first["alone"], first["together"], first["changes"]) == (2, 1.5, ["-25.0%", "-", "-", "-"])
    assert (second["alone"], second["changes"]) == (None, ["-", "-", "+50.0%", "-"])
