from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.cluster.drift import FACTS, QUANTITIES, NodeFacts, drift_reason, find_drift
from benchmark.records import Code, Drift, Environment, Gpu, GpuProcess, ReadyNode
from benchmark.settings import Settings
from tests.unit.building import GPU, HOST

TOLD = GPU.model_copy(
    update={
        "vbios": "92.00.66.00.0C",
        "power_limit_w": 165.0,
        "sm_clock_max_mhz": 1440,
        "sm_clock_set_mhz": 1440,
        "memory_clock_max_mhz": 1215,
        "ecc": True,
        "mig": False,
        "persistence": True,
        "pcie_generation_max": 4,
        "pcie_width_max": 16,
        "throttle_reasons": ("gpu_idle",),
    }
)
NODE = HOST.model_copy(
    update={
        "gpus": (TOLD,),
        "driver": "550.54.15",
        "cuda": "12.4",
        "kernel": "6.1.0-18-amd64",
        "compiler": "gcc",
        "code": Code(sha256="12" * 32, commit="34" * 20, modified=False),
        "cpu_governor": "performance",
        "model_sha256": "ab" * 32,
        "tokenizer_sha256": "cd" * 32,
        "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
        "server_packages": {"vllm": "0.33.0", "torch": "2.14.0"},
    }
)
CUDA = Settings()


def clock(offset_ms: float) -> ReadyNode:
    offset_ns = int(offset_ms * 1e6)
    return ReadyNode(node="n", launched_unix_ns=1, offset_ns=offset_ns, uncertainty_ns=1, round_trips=7)


def node(gpu: dict[str, Any] | None = None, settings: Settings = CUDA, **changes: Any) -> NodeFacts:
    gpus = (Gpu.model_validate({**dict(TOLD), **(gpu or {})}),)
    return NodeFacts(Environment.model_validate({**dict(NODE), "gpus": gpus, **changes}), settings)


def facts(*nodes: NodeFacts) -> dict[str, dict[str, tuple[str, ...]]]:
    found = find_drift({f"jw{number}": one for number, one in enumerate(nodes, start=2)})
    return {one.fact: one.values for one in found}


def test_like_nodes_do_not_differ() -> None:
    assert facts(node(), node(), node()) == {}


DIFFERENCES: list[tuple[str, dict[str, Any], str, str]] = [
    ("driver", {"driver": "535.161.08"}, "550.54.15", "535.161.08"),
    ("cuda", {"cuda": "13.0"}, "12.4", "13.0"),
    (
        "code",
        {"code": Code(sha256="56" * 32, commit="34" * 20, modified=True)},
        "121212121212 (commit 343434343434)",
        "565656565656 (commit 343434343434, modified)",
    ),
    ("nvml", {"nvml": "NVML does not answer."}, "answers", "does not answer"),
    ("cpu", {"cpu": "another CPU"}, "a CPU", "another CPU"),
    ("cpu_count", {"cpu_count": 4}, "8", "4"),
    ("cpu_governor", {"cpu_governor": "powersave"}, "performance", "powersave"),
    ("kernel", {"kernel": "5.15.0"}, "6.1.0-18-amd64", "5.15.0"),
    ("compiler", {"compiler": "none"}, "gcc", "none"),
    ("python", {"python": "3.12.1"}, "3.11.2", "3.12.1"),
    ("model_sha256", {"model_sha256": "12" * 32}, "ab" * 6, "12" * 6),
    ("tokenizer_sha256", {"tokenizer_sha256": "12" * 32}, "cd" * 6, "12" * 6),
    ("packages.torch", {"packages": {"torch": "2.11.0", "transformers": "5.23.0"}}, "2.13.0", "2.11.0"),
    ("packages.transformers", {"packages": {"torch": "2.13.0"}}, "5.23.0", "not installed"),
    ("server_packages.vllm", {"server_packages": {"vllm": "0.32.0", "torch": "2.14.0"}}, "0.33.0", "0.32.0"),
    ("server_packages.torch", {"server_packages": {"vllm": "0.33.0"}}, "2.14.0", "not installed"),
    ("memory_mib", {"memory_mib": 32768}, "65536", "32768"),
    ("gpu.count", {"gpus": (TOLD, TOLD)}, "1", "2"),
    ("gpu.vbios", {"gpu": {"vbios": "92.00.19"}}, "92.00.66.00.0C", "92.00.19"),
    ("gpu.power_limit_w", {"gpu": {"power_limit_w": 120.0}}, "165.0", "120.0"),
    ("gpu.sm_clock_max_mhz", {"gpu": {"sm_clock_max_mhz": 1410}}, "1440", "1410"),
    ("gpu.sm_clock_set_mhz", {"gpu": {"sm_clock_set_mhz": 900}}, "1440", "900"),
    ("gpu.memory_clock_max_mhz", {"gpu": {"memory_clock_max_mhz": 810}}, "1215", "810"),
    ("gpu.memory_mib", {"gpu": {"memory_mib": 24000}}, "24576", "24000"),
    ("gpu.ecc", {"gpu": {"ecc": False}}, "on", "off"),
    ("gpu.mig", {"gpu": {"mig": True}}, "off", "on"),
    ("gpu.persistence", {"gpu": {"persistence": False}}, "on", "off"),
    ("gpu.pcie_generation_max", {"gpu": {"pcie_generation_max": 3}}, "4", "3"),
    ("gpu.pcie_width_max", {"gpu": {"pcie_width_max": 8}}, "16", "8"),
    ("gpu.held_down", {"gpu": {"throttle_reasons": ("hw_thermal_slowdown",)}}, "no", "hw_thermal_slowdown"),
    ("gpu.other_processes", {"gpu": {"processes": (GpuProcess(pid=7),)}}, "0", "1"),
]


@pytest.mark.parametrize(("fact", "change", "usual", "other"), DIFFERENCES, ids=[one[0] for one in DIFFERENCES])
def test_each_fact_that_counts_is_found(fact: str, change: dict[str, Any], usual: str, other: str) -> None:
    assert facts(node(**change), node(), node()) == {fact: {usual: ("jw3", "jw4"), other: ("jw2",)}}


def test_servers_of_two_versions_are_found() -> None:
    old, new = (replace(node(), server_version=version) for version in ("0.32.0", "0.33.0"))
    assert facts(old, new, new, node()) == {"server_version": {"0.33.0": ("jw3", "jw4"), "0.32.0": ("jw2",)}}


def test_every_fact_of_the_list_has_been_tried() -> None:
    tried = {one[0] for one in DIFFERENCES} | {"clock_offset_s", "server_version"}
    assert {name for name in [*FACTS, *QUANTITIES] if "packages." not in name} <= tried


@pytest.mark.parametrize(
    "change",
    [
        {"memory_mib": 65536 - 300},
        {"gpu": {"pcie_generation": 1, "pcie_width": 8}},
        {"gpu": {"throttle_reasons": ("sw_power_cap",)}},
        {"gpu": {"power_limit_w": 164.9}},
        {"gpu": {"ecc_corrected": 5}},
        {"gpu": {"uuid": "GPU-2", "index": 1}},
        {"gpu": {"processes": (GpuProcess(pid=7, kind="graphics"),)}},
        {"hostname": "other", "platform": "Linux-other"},
    ],
    ids=str,
)
def test_what_wiggles_is_no_drift(change: dict[str, Any]) -> None:
    assert facts(node(), node(**change)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"driver": None},
        {"cpu_governor": ""},
        {"kernel": ""},
        {"model_sha256": "", "tokenizer_sha256": ""},
        {"gpu": {"ecc": None, "vbios": "", "power_limit_w": None, "pcie_width_max": None}},
    ],
    ids=str,
)
def test_a_node_that_does_not_tell_is_not_compared(change: dict[str, Any]) -> None:
    assert facts(node(), node(**change), node()) == {}


def test_other_hardware_is_not_compared() -> None:
    other = node({"name": "NVIDIA H100 80GB HBM3", "power_limit_w": 700.0}, driver="580")
    assert facts(node(), other) == {}
    cpu = Settings(benchmark_device="cpu")
    one = NodeFacts(HOST, cpu)
    slow = NodeFacts(HOST.model_copy(update={"cpu": "an old CPU", "python": "3.10"}), cpu)
    assert facts(one, slow) == {}
    (found,) = find_drift({"a": one, "b": NodeFacts(HOST.model_copy(update={"python": "3.10"}), cpu)})
    assert (found.hardware, found.fact) == ("CPU a CPU", "python")


def test_hashes_of_models_that_are_meant_to_differ_are_no_drift() -> None:
    other = Settings(benchmark_model="/models/other")
    assert facts(node(), node(settings=other, model_sha256="12" * 32)) == {}
    assert set(facts(node(), node(settings=other), node(model_sha256="12" * 32))) == {"model_sha256"}


def test_unlike_gpus_within_a_node_are_reported() -> None:
    capped = TOLD.model_copy(update={"power_limit_w": 120.0})
    found = facts(node(gpus=(TOLD, TOLD)), node(gpus=(TOLD, capped)), node(gpus=(TOLD, TOLD)))
    assert found == {"gpu.power_limit_w": {"165.0": ("jw2", "jw4"), "120.0, 165.0": ("jw3",)}}


def test_a_clock_that_is_far_off_is_reported() -> None:
    def at(offset_ms: float) -> NodeFacts:
        return NodeFacts(NODE, CUDA, clock(offset_ms))

    assert facts(at(0), at(400), at(-400)) == {}
    assert facts(at(0), at(40), at(-5300)) == {"clock_offset_s": {"0.0": ("jw2", "jw3"), "-5.3": ("jw4",)}}
    assert facts(at(0), NodeFacts(NODE, CUDA)) == {}


def test_the_sentence_is_bounded() -> None:
    drift = [
        Drift(hardware="x" * 4000, fact=f"f{i}", values={"v" * 3000 + str(n): (f"n{n}",) for n in range(9)})
        for i in range(99)
    ]
    sentence = drift_reason(drift)
    assert len(sentence) <= 4000
    assert "and 94 more facts" in sentence
    assert "and 6 more values" in sentence


texts = st.text(max_size=8)
gpus = st.builds(
    Gpu,
    index=st.just(0),
    name=st.just("GPU"),
    memory_mib=st.integers(0, 2**63 - 1),
    vbios=texts,
    power_limit_w=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ecc=st.none() | st.booleans(),
    sm_clock_max_mhz=st.none() | st.integers(0, 2**63 - 1),
)
environments = st.builds(
    Environment,
    hostname=texts,
    platform=texts,
    cpu=texts,
    cpu_count=st.integers(0, 3),
    memory_mib=st.integers(0, 2**63 - 1),
    python=texts,
    gpus=st.lists(gpus, max_size=3).map(tuple),
    driver=st.none() | texts,
    model_sha256=texts,
    packages=st.dictionaries(st.sampled_from(["torch", "numpy", "odd"]), texts),
)
clocks = st.none() | st.integers(-(2**62), 2**62).map(lambda ns: clock(0).model_copy(update={"offset_ns": ns}))
clusters = st.dictionaries(
    st.from_regex(r"[a-z]{1,3}[0-9]{0,3}", fullmatch=True),
    st.builds(NodeFacts, environments, st.sampled_from([CUDA, Settings(benchmark_device="cpu")]), clocks),
    max_size=6,
)


@settings(max_examples=40)
@given(clusters)
def test_whatever_nodes_say_is_reported_once(nodes: dict[str, NodeFacts]) -> None:
    for one in find_drift(nodes):
        names = [name for reported in one.values.values() for name in reported]
        assert len(one.values) > 1
        assert len(names) == len(set(names))
        assert set(names) <= set(nodes)
        counts = [len(reported) for reported in one.values.values()]
        assert counts == sorted(counts, reverse=True)
        assert len(drift_reason([one])) <= 4000


@settings(max_examples=40)
@given(clusters, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(nodes: dict[str, NodeFacts], random: Any) -> None:
    names = list(nodes)
    random.shuffle(names)
    assert find_drift({name: nodes[name] for name in names}) == find_drift(nodes)


@settings(max_examples=40)
@given(clusters)
def test_a_node_does_not_differ_from_its_twin(nodes: dict[str, NodeFacts]) -> None:
    for one in nodes.values():
        assert find_drift({"a": one, "b": one}) == ()


@given(st.lists(st.integers(1, 2**40), min_size=2, max_size=8))
def test_memory_within_two_percent_is_never_drift(sizes: list[int]) -> None:
    found = facts(*(node(memory_mib=size) for size in sizes))
    ordered = sorted(sizes)
    gaps = [b - a > 0.02 * b for a, b in pairwise(ordered)]
    assert ("memory_mib" in found) == any(gaps)
    assert len(found.get("memory_mib", {None: ()})) == sum(gaps) + 1
    assert math.isfinite(sum(sizes))


def test_a_node_that_serves_otherwise_is_not_held_against_vllm() -> None:
    assert facts(node(), node(server_packages={})) == {}
