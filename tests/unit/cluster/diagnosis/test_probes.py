"""Which node and which GPU the probes give away, and why: records made by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.cluster.arithmetic import group_nodes
from benchmark.cluster.diagnosis import diagnose, no_history
from benchmark.cluster.diagnosis.probe_figures import UNKNOWN, kind_of
from benchmark.cluster.diagnosis.slow import Earlier
from benchmark.cluster.export.prometheus import Exported, prometheus_lines
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.summary import finding_words
from benchmark.cluster.report.headline import slow_words
from benchmark.cluster.report.page import render_report
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.run_verdict import run_verdict
from benchmark.records import Finding, Gpu, NodeResult
from benchmark.records.probes import GpuProbes, HardwareProbes, Measured
from tests.unit.building import HOST, add_probed, hardware, make_run, probes
from tests.unit.cluster.diagnosis.nodes import node, watched


def probed(name: str, found: HardwareProbes, gpus: Sequence[Gpu] = (), **changes: Any) -> LoadedNode:
    """Return a node whose hardware alone was probed."""
    seen = tuple(gpus) or tuple(Gpu(index=one.index, name=one.name, memory_mib=144384) for one in found.gpus)
    result = NodeResult(
        run_id="run",
        node=name,
        status="complete",
        stage="done",
        started_at="2025-01-02T03:04:05+00:00",
        resolved=hardware(),
        environment=HOST.model_copy(update={"gpus": seen}),
        probes=found,
    )
    return LoadedNode(name, result.model_copy(update=changes))


def findings(nodes: Sequence[LoadedNode], earlier: Earlier = no_history) -> tuple[Finding, ...]:
    return diagnose(nodes, group_nodes(nodes), (), earlier)


def changed(found: HardwareProbes, **values: float) -> HardwareProbes:
    """Return the probes with other values of the node's own, and between GPUs."""

    def put(figures: dict[str, Measured]) -> dict[str, Measured]:
        return {n: one.model_copy(update={"value": values.get(n, one.value)}) for n, one in figures.items()}

    return found.model_copy(update={"node": put(found.node), "between_gpus": put(found.between_gpus)})


def with_gpu(found: HardwareProbes, index: int, **values: tuple[float, str]) -> HardwareProbes:
    """Return the probes with other figures of one GPU."""

    def put(one: GpuProbes) -> GpuProbes:
        figures = {name: Measured(value=value, unit=unit) for name, (value, unit) in values.items()}
        return one.model_copy(update={"figures": {**one.figures, **figures}}) if one.index == index else one

    return found.model_copy(update={"gpus": tuple(put(one) for one in found.gpus)})


def test_like_hardware_raises_nothing() -> None:
    assert findings([probed("n1", probes(8))]) == ()
    assert findings([probed(f"n{number}", probes(8, 1 + 0.005 * number)) for number in range(3)]) == ()
    assert findings([probed("n1", probes()), probed("n2", probes(pace=0.98))]) == ()
    bare = HardwareProbes(seconds=1)
    assert findings([probed("n1", bare), probed("n2", bare)]) == ()


@pytest.mark.parametrize("nodes", [1, 2, 3])
@pytest.mark.parametrize("gpus", [2, 8])
def test_a_slow_gpu_is_named_beside_its_nodes_others(nodes: int, gpus: int) -> None:
    each = [probed(f"n{number}", probes(gpus)) for number in range(1, nodes)]
    (found,) = findings([*each, probed("bad", probes(gpus, slow=1))])
    assert (found.node, found.place, found.metric, found.unit) == ("bad", "GPU 1", "probe.device_memory_read", "GB/s")
    assert found.value == pytest.approx(3280)
    assert found.expected == pytest.approx(4100)
    assert found.against == ("the node's other GPU" if gpus == 2 else "the median of the node's 7 other GPUs")
    words = "GPU 1: device memory read is 3280 GB/s, -20% against 4100 GB/s, the"
    assert finding_words(found).startswith(words)
    assert slow_words(found) == "GPU 1 of bad is slow"


def test_a_gpu_10_percent_slower_is_named() -> None:
    slow = with_gpu(probes(8), 3, device_memory_read=(0.9 * 4100, "GB/s"))
    assert [(one.node, one.place) for one in findings([probed("n1", slow)])] == [("n1", "GPU 3")]


def test_a_node_all_of_whose_gpus_are_slow_is_named_once() -> None:
    (found,) = findings([probed("n1", probes(4)), probed("n2", probes(4, 0.8)), probed("n3", probes(4))])
    assert (found.node, found.place) == ("n2", "")
    assert found.change == pytest.approx(-0.2)
    # A fifth longer is within what launching a kernel takes by nature.
    named = {found.metric.removeprefix("probe.").replace("_", " "), *(words.rsplit(" ", 5)[0] for words in found.also)}
    assert not any("kernel" in words for words in named)
    assert len(named) == 5


def test_half_of_a_nodes_gpus_are_named_beside_like_nodes() -> None:
    # Within the node they are as many as the others, and its median lies between.
    half = probes(8)
    for gpu in range(4):
        half = with_gpu(half, gpu, device_memory_read=(0.9 * 4100, "GB/s"))
    found = findings([probed("half", half), *(probed(f"n{number}", probes(8)) for number in range(4))])
    assert {(one.node, one.place) for one in found} == {("half", f"GPU {gpu}") for gpu in range(4)}
    assert {one.against for one in found} == {"the median of 39 GPUs of like nodes"}


def test_two_nodes_of_one_gpu_say_which_is_slow() -> None:
    (found,) = findings([probed("n1", probes()), probed("n2", probes(pace=0.85))])
    assert (found.node, found.against) == (
        "n2",
        "n1, the only like node: which of the two is off cannot be known without history",
    )
    assert slow_words(found).startswith("n2 is slow in one thing: ")


def test_a_node_is_held_against_its_own_earlier_probes() -> None:
    def earlier(name: str) -> Sequence[dict[str, float]]:
        return [{"probe.device_memory_read": 4800.0}] * 3

    (found,) = findings([probed("n1", probes())], earlier)
    assert (found.metric, found.against) == ("probe.device_memory_read", "the median of its 3 earlier runs")


def test_a_lower_clock_is_the_cause() -> None:
    each = {"sustained_matrix_bfloat16": (500.0, "TFLOP/s"), "sustained_clock": (1200.0, "MHz")}
    (found,) = findings([probed("n1", with_gpu(probes(8), 5, **each))])
    assert (found.place, found.cause) == ("GPU 5", "lower clocks")
    assert found.evidence == (
        "The mean SM clock of a long matrix product is 1200 MHz, 1700 MHz on the node's other GPUs.",
    )


def test_a_slow_gpu_has_its_number_of_nvidia_smi_too() -> None:
    """As with CUDA_VISIBLE_DEVICES=4,5,6,7,0,1,2,3: whoever pulls GPU 5 out of the machine pulls a healthy one."""
    seen = [Gpu(index=n, number=(n + 4) % 8, name="NVIDIA H200", memory_mib=144384) for n in range(8)]
    (found,) = findings([probed("n1", probes(8, slow=5), seen)])
    assert found.place == "GPU 5"
    assert found.evidence[-1] == "GPU 5 of the run is GPU 1 of nvidia-smi: CUDA_VISIBLE_DEVICES renumbers them."
    same = [gpu.model_copy(update={"number": gpu.index}) for gpu in seen]
    (found,) = findings([probed("n1", probes(8, slow=5), same)])
    assert "nvidia-smi" not in " ".join(found.evidence)


def test_what_holds_a_gpus_clock_down_is_the_cause() -> None:
    each = {
        "sustained_matrix_bfloat16": (500.0, "TFLOP/s"),
        "sustained_clock": (1200.0, "MHz"),
        "sustained_temperature": (91.0, "C"),
        "sustained_throttled_sw_thermal_slowdown": (0.9, "share"),
    }
    (found,) = findings([probed("n1", with_gpu(probes(8), 5, **each))])
    assert found.cause == "thermal throttling"
    assert found.evidence[0] == (
        "A GPU was throttled by heat for 90% of the time of a long matrix product, the node's other GPUs for 0%, at up "
        "to 91 °C."
    )
    assert found.evidence[1].startswith("Also lower clocks: ")


def test_what_is_set_on_one_gpu_is_the_cause() -> None:
    gpus = [
        Gpu(index=index, name="NVIDIA H200", memory_mib=144384, power_limit_w=400 if index == 2 else 700)
        for index in range(4)
    ]
    slow = with_gpu(probes(4), 2, sustained_matrix_bfloat16=(500.0, "TFLOP/s"))
    (found,) = findings([probed("n1", slow, gpus)])
    assert found.cause == "lower power limit"
    assert found.evidence == ("The power limit is 400 W, 700 W on the node's other GPUs.",)


def test_a_gpu_that_computes_wrongly_is_named_as_such() -> None:
    slow = with_gpu(probes(4, slow=2), 2, wrong_products=(3.0, "of 38"))
    (found,) = findings([probed("n1", slow)])
    assert found.cause == "GPU memory errors"
    assert found.evidence == ("GPU 2 computed 3 of 38 products of the same matrices wrongly.",)


def test_a_link_that_is_down_is_named() -> None:
    down = changed(probes(8), peer_copy_2_to_5=20.0)
    (found,) = findings([probed("n1", probes(8)), probed("n2", down), probed("n3", probes(8))])
    assert (found.node, found.place, found.metric) == ("n2", "GPU 2 to 5", "probe.peer_copy")
    assert found.value == 20


def test_a_gpu_all_of_whose_links_are_slow_is_named() -> None:
    pairs = {f"peer_copy_{a}_to_{b}": 90.0 for a in range(8) for b in range(8) if 6 in (a, b) and a != b}
    (found,) = findings([probed("n1", changed(probes(8), **pairs)), probed("n2", probes(8))])
    assert (found.node, found.place, found.metric) == ("n1", "GPU 6", "probe.peer_copy")


def test_links_that_differ_by_design_are_no_fault() -> None:
    # Two sockets of two GPUs: a pair of one socket is three times as fast.
    pairs = {f"peer_copy_{a}_to_{b}": 120.0 for a in range(4) for b in range(4) if a // 2 != b // 2}
    each = [probed(f"n{number}", changed(probes(4), **pairs)) for number in range(3)]
    assert findings(each) == ()
    assert findings(each[:1]) == ()


def test_gpus_of_two_models_are_not_held_against_each_other() -> None:
    mixed = probes(4)
    other = [
        one.model_copy(update={"name": "NVIDIA L4", "figures": probes(pace=0.1).gpus[0].figures})
        for one in mixed.gpus[2:]
    ]
    assert findings([probed("n1", mixed.model_copy(update={"gpus": (*mixed.gpus[:2], *other)}))]) == ()


@pytest.mark.parametrize(
    ("name", "own", "of", "named"),
    [
        ("cpu_one_core", 510, 600, False),
        ("cpu_one_core", 300, 600, True),
        ("host_memory_copy", 150, 190, False),
        ("host_memory_copy", 95, 190, True),
        ("disk_read", 1.6, 2.2, False),
        ("disk_read", 0.5, 2.2, True),
    ],
)
def test_what_varies_by_nature_needs_a_larger_gap(name: str, own: float, of: float, named: bool) -> None:
    def with_value(value: float) -> HardwareProbes:
        unit = "MB/s" if name.startswith("cpu") else "GB/s"
        return HardwareProbes(node={name: Measured(value=value, unit=unit)}, seconds=1)

    nodes = [probed(f"n{number}", with_value(of)) for number in range(5)]
    found = findings([*nodes, probed("slow", with_value(own))])
    assert [one.node for one in found] == (["slow"] if named else [])


def test_probes_are_the_evidence_for_a_slow_node() -> None:
    like = [node(f"n{number}", probes=probes(1)) for number in range(4)]
    (found,) = findings([*like, node("slow", 2250, probes=probes(1, slow=0))])
    assert (found.node, found.metric, found.cause) == ("slow", "qps", "slower hardware")
    assert found.evidence == ("Device memory read 3,280 GB/s, 20% below 4,100 GB/s on like nodes.",)
    assert not any("device memory" in words for words in found.also)


def test_a_slow_gpu_is_evidence_for_its_slow_node() -> None:
    like = [node(f"n{number}", probes=probes(4)) for number in range(4)]
    found = findings([*like, node("slow", 2250, probes=probes(4, slow=3))])
    assert {(one.node, one.place) for one in found} == {("slow", ""), ("slow", "GPU 3")}
    (whole,) = (one for one in found if not one.place)
    assert whole.evidence == (
        "GPU 3: device memory read 3,280 GB/s, 20% below 4,100 GB/s, the median of the node's 3 other GPUs.",
    )


def test_what_made_it_so_comes_before_the_probes() -> None:
    hot: dict[str, Any] = {"telemetry": watched(throttled={"hw_thermal_slowdown": 0.5})}
    cool: dict[str, Any] = {"telemetry": watched()}
    like = [node(f"n{number}", probes=probes(1), **cool) for number in range(4)]
    (found,) = findings([*like, node("slow", 2250, probes=probes(1, slow=0), **hot)])
    assert found.cause == "thermal throttling"
    assert found.evidence[1].startswith("Also slower hardware: Device memory read")


def test_a_slow_disk_is_no_cause_of_slow_answers() -> None:
    fast, slow = (
        HardwareProbes(node={"disk_read": Measured(value=value, unit="GB/s")}, seconds=1) for value in (2.0, 0.2)
    )
    like: dict[str, Any] = {"probes": fast, "stages_s": {"loading": 10.0}}
    nodes = [node(f"n{number}", **like) for number in range(4)]
    (found,) = findings([*nodes, node("slow", 2250, probes=slow, stages_s={"loading": 60.0})])
    assert found.cause == "slow disk at model load"
    assert found.evidence[1] == "Disk read 0.20 GB/s, 90% below 2.00 GB/s on like nodes."


@pytest.mark.parametrize(("value", "named"), [(350, []), (250, ["slow"])])
def test_on_a_shared_machine_only_half_is_worth_a_word(value: float, named: list[str]) -> None:
    one, slow = (
        HardwareProbes(node={"cpu_one_core": Measured(value=rate, unit="MB/s")}, seconds=1) for rate in (600, value)
    )
    shared: dict[str, Any] = {"resolved": hardware(benchmark_shared_machine=True)}
    found = findings([*(probed(f"n{number}", one, **shared) for number in range(4)), probed("slow", slow, **shared)])
    assert [one.node for one in found] == named


def test_nodes_with_other_numbers_of_gpus_are_left_out() -> None:
    nodes = [probed(f"n{number}", probes(4)) for number in range(3)]
    assert findings([*nodes, probed("large", changed(probes(8), all_reduce=200.0))]) == ()


def test_every_slow_gpu_has_a_series_and_a_line_of_its_own(tmp_path: Path) -> None:
    resolved = hardware()
    make_run(tmp_path, {"n1": resolved})
    add_probed(tmp_path, "n1", resolved, with_gpu(probes(8, slow=1), 6, device_memory_read=(3000.0, "GB/s")))
    gathered = gather(tmp_path)
    places = [one.place for one in gathered.result.findings]
    assert places == ["GPU 6", "GPU 1"]
    exported = Exported(gathered.run, gathered.result, frozenset(gathered.run.nodes))
    lines = [line for line in prometheus_lines([exported]) if "slow_node_change_ratio{" in line]
    assert len({line.rpartition(" ")[0] for line in lines}) == len(lines) == 2
    told = run_verdict(Outcome(gathered.run, gathered.result), tmp_path, "report.html")
    assert [one.place for one in told.slow] == places
    assert "GPU 6 of n1 is slow" in render_report(gathered, tmp_path).split("<main>")[0]


def test_a_figure_that_nobody_knows_has_a_kind() -> None:
    assert kind_of("new_probe") == UNKNOWN
    assert kind_of("device_memory_read").spread < kind_of("host_memory_copy").spread
