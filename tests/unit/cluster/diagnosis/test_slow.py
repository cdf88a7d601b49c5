"""Which node is slow, in what, and against what."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmark.cluster.arithmetic import group_nodes
from benchmark.cluster.diagnosis import diagnose, no_history
from benchmark.cluster.diagnosis.aspects import aspects_of, rate_of, reading
from benchmark.cluster.diagnosis.slow import Earlier
from benchmark.cluster.results.load import LoadedNode
from benchmark.records import CpuTime, Energy, Finding
from benchmark.resolve import resolve
from tests.unit.cluster.diagnosis.nodes import node, watched


def findings(nodes: Sequence[LoadedNode], earlier: Earlier = no_history) -> tuple[Finding, ...]:
    return diagnose(nodes, group_nodes(nodes), (), earlier)


def earlier(**qps: Sequence[float]) -> Earlier:
    def of(name: str) -> Sequence[Mapping[str, float]]:
        return [{"qps": value} for value in qps.get(name, ())]

    return of


def used(tokens_per_joule: float) -> dict[str, Any]:
    return {"telemetry": watched(energy=Energy(joules=1, window_s=1, tokens_per_joule=tokens_per_joule))}


def test_like_nodes_that_are_equally_fast_raise_nothing() -> None:
    assert findings([node(f"jw{number}", 1800 + 9 * number) for number in range(5)]) == ()
    assert findings([node("jw2")]) == ()
    assert findings([]) == ()


def test_the_slow_one_is_named_with_all_it_is_slow_in() -> None:
    (found,) = findings([node("jw2"), node("jw3", 2250), node("jw4")])
    assert (found.node, found.metric) == ("jw3", "qps")
    assert found.change == pytest.approx(-0.2, abs=1e-5)
    assert found.expected == pytest.approx(1 / 1.8, rel=1e-4)
    assert found.against == "the median of 2 like nodes"
    assert found.also == ("tokens/s 28.4 instead of 35.6 (-20%)", "P50 TPOT 34.9 ms instead of 27.8 ms (+26%)")
    assert (found.cause, found.evidence) == ("", ())


def test_causes_come_with_their_evidence() -> None:
    slow: dict[str, Any] = {
        "cpu": CpuTime(wall_s=10, used_s=5, waited_s=4),
        "telemetry": watched(throttled={"hw_thermal_slowdown": 0.5}, sm_clock_mhz=900),
    }
    like: dict[str, Any] = {"cpu": CpuTime(wall_s=10, used_s=5, waited_s=0), "telemetry": watched(sm_clock_mhz=1440)}
    (found,) = findings([node("jw2", **like), node("jw3", 2250, **slow), node("jw4", **like)])
    assert found.cause == "thermal throttling"
    assert [sentence.split(":")[0] for sentence in found.evidence[1:]] == ["Also CPU starvation", "Also lower clocks"]


def test_the_worst_comes_first() -> None:
    names = [one.node for one in findings([*(node(f"n{i}") for i in range(5)), node("bad", 2300), node("worse", 3000)])]
    assert names == ["worse", "bad"]


def test_energy_alone_is_a_finding() -> None:
    (found,) = findings([*(node(f"n{i}", **used(0.5)) for i in range(4)), node("hungry", **used(0.4))])
    assert (found.node, found.metric) == ("hungry", "tokens_per_joule")
    assert found.change == pytest.approx(-0.2)


def test_two_nodes_say_that_history_is_what_would_tell() -> None:
    (found,) = findings([node("jw2"), node("jw3", 2250)])
    assert found.node == "jw3"
    assert found.against == "jw2, the only like node: which of the two is off cannot be known without history"


def test_two_nodes_with_a_history_are_held_against_it() -> None:
    # jw3 has always been slower: it is jw2 that changed, although it is the faster one.
    known = earlier(jw2=[0.70, 0.71, 0.69], jw3=[0.44, 0.45, 0.44])
    (found,) = findings([node("jw2"), node("jw3", 2250)], known)
    assert (found.node, found.against) == ("jw2", "the median of its 3 earlier runs")
    assert found.change == pytest.approx(1 / 1.8 / 0.70 - 1, abs=1e-4)


def test_two_nodes_that_differ_as_ever_say_so() -> None:
    known = earlier(jw2=[1 / 1.8] * 4, jw3=[1 / 2.25] * 4)
    (found,) = findings([node("jw2"), node("jw3", 2250)], known)
    assert found.against == "jw2, the only like node; neither differs from its own earlier runs"


def test_one_node_is_held_against_its_own_history() -> None:
    assert findings([node("jw2")], earlier(jw2=[0.7, 0.7])) == ()
    (found,) = findings([node("jw2")], earlier(jw2=[0.7, 0.7, 0.7]))
    assert found.node == "jw2"


@pytest.mark.parametrize(
    ("settings", "expected", "rate"),
    [
        ({"benchmark_profile": "quick"}, ["qps", "tokens_per_s", "ttft_ms.p50", "tpot_ms.p50"], ""),
        ({"benchmark_profile": "mlperf-singlestream"}, ["qps", "tokens_per_s", "ttft_ms.p50", "tpot_ms.p50"], ""),
        ({"benchmark_profile": "mlperf-offline"}, ["qps", "tokens_per_s", "tpot_ms.p50"], ""),
        ({"benchmark_profile": "mlperf-server"}, ["latency_ms.p50", "ttft_ms.p50", "tpot_ms.p50"], "0.5"),
        ({"benchmark_profile": "mlperf-server", "benchmark_target_qps": "auto"}, ["qps"], "searched"),
    ],
)
def test_what_tells_how_fast_a_node_is(settings: dict[str, Any], expected: list[str], rate: str) -> None:
    result = node("jw2").result
    assert result is not None
    result = result.model_copy(update={"resolved": resolve(settings)})
    assert [aspect.metric for aspect in aspects_of(result) if aspect.metric != "tokens_per_joule"] == expected
    assert rate_of(result) == rate


def test_nodes_with_different_rates_are_not_compared() -> None:
    resolved = resolve({"benchmark_profile": "mlperf-server"})
    nodes = []
    for name, latency, target in (("jw2", 1800, 1.0), ("jw3", 2600, 2.0), ("jw4", 2600, 2.0)):
        one = node(name, latency)
        assert one.result is not None
        changes = {"resolved": resolved, "target_qps": target}
        nodes.append(LoadedNode(name, one.result.model_copy(update=changes), one.metrics, one.times))
    assert findings(nodes) == ()


def test_an_undefined_value_is_left_out() -> None:
    empty = LoadedNode("jw2", node("jw2").result)
    result = empty.result
    assert result is not None
    assert all(reading(empty, aspect) is None for aspect in aspects_of(result))
    assert findings([node("jw3"), node("jw4"), empty]) == ()
