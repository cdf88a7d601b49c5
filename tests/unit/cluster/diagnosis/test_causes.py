"""Each cause: named where its threshold is reached, silent below it, and where nothing is known."""

from typing import Any

import pytest

from benchmark.cluster.diagnosis import CAUSES
from benchmark.cluster.diagnosis.suspect import Suspect
from benchmark.records import CpuTime, Drift, GpuProcess
from benchmark.records.probes import GpuProbes, HardwareProbes, Measured
from tests.unit.cluster.diagnosis.nodes import host, node, watched, with_gpu

Change = dict[str, Any]


def causes(own: Change, others: Change | None = None, drift: tuple[Drift, ...] = ()) -> dict[str, list[str]]:
    peers = [node(name, **(others or {})) for name in ("jw3", "jw4", "jw5")]
    suspect = Suspect(node("jw2", **own), peers, drift)
    return {cause: reported for cause, rule in CAUSES.items() if (reported := list(rule(suspect)))}


def telemetry(**gpu: Any) -> Change:
    return {"telemetry": watched(**gpu)}


def cpu(**fields: Any) -> Change:
    return {"cpu": CpuTime.model_validate({"wall_s": 10, "used_s": 5, "waited_s": 0.1, **fields})}


def tenant(name: str) -> Change:
    return with_gpu(processes=(GpuProcess(pid=4711, name=name, user="alice", memory_mib=12000),))


def model_took(seconds: float) -> Change:
    return {"stages_s": {"loading": seconds}}


def memory_reads(gb_s: float) -> Change:
    figures = {"device_memory_read": Measured(value=gb_s, unit="GB/s")}
    return {"probes": HardwareProbes(gpus=(GpuProbes(index=0, figures=figures),), seconds=1)}


CASES = [
    # cause, what is reached, what is not, like nodes, what is said
    (
        "thermal throttling",
        telemetry(throttled={"sw_thermal_slowdown": 0.35}, temperature_c_max=92),
        telemetry(throttled={"sw_thermal_slowdown": 0.14}),
        telemetry(throttled={"sw_thermal_slowdown": 0.05}),
        "A GPU was throttled by heat for 35% of the time, like nodes for 5%, at up to 92 °C.",
    ),
    (
        "thermal throttling",
        with_gpu(throttle_reasons=("hw_thermal_slowdown",)),
        with_gpu(throttle_reasons=("gpu_idle",)),
        {},
        "A GPU was throttled by heat before the run (hw_thermal_slowdown), like nodes were not.",
    ),
    (
        "power throttling",
        telemetry(throttled={"sw_power_cap": 0.6}),
        telemetry(throttled={"sw_power_cap": 0.59}),
        telemetry(throttled={"sw_power_cap": 0.5}),
        "A GPU was throttled by its power limit for 60% of the time, like nodes for 50%.",
    ),
    (
        "lower power limit",
        with_gpu(power_limit_w=120, power_limit_default_w=165),
        with_gpu(power_limit_w=161),
        with_gpu(power_limit_w=165),
        "The power limit is 120 W, 165 W on like nodes; the board's default is 165 W.",
    ),
    (
        "lower clocks",
        telemetry(sm_clock_mhz=1200),
        telemetry(sm_clock_mhz=1410),
        telemetry(sm_clock_mhz=1440),
        "The mean SM clock under load is 1200 MHz, 1440 MHz on like nodes.",
    ),
    (
        "lower clocks",
        with_gpu(memory_clock_max_mhz=810),
        with_gpu(memory_clock_max_mhz=1215),
        with_gpu(memory_clock_max_mhz=1215),
        "The highest memory clock allowed is 810 MHz, 1215 MHz on like nodes.",
    ),
    (
        "narrower PCIe link",
        telemetry(pcie_width=8),
        telemetry(pcie_width=16),
        telemetry(pcie_width=16),
        "PCIe lanes under load: 8, 16 on like nodes.",
    ),
    (
        "narrower PCIe link",
        with_gpu(pcie_generation_max=3),
        with_gpu(pcie_generation=1, pcie_generation_max=4),
        with_gpu(pcie_generation_max=4),
        "PCIe generation at best: 3, 4 on like nodes.",
    ),
    (
        "GPU memory errors",
        telemetry(ecc_corrected=10),
        telemetry(ecc_corrected=9),
        telemetry(),
        "GPU 0 had 10 new corrected ECC errors while measuring.",
    ),
    (
        "GPU memory errors",
        telemetry(xid=(48, 63)),
        telemetry(ecc_uncorrected=0),
        telemetry(),
        "The driver reported XID 48, 63 of GPU 0 while measuring.",
    ),
    (
        "co-tenant process",
        tenant("python3"),
        tenant("Xorg"),
        tenant("Xorg"),
        "On GPU 0 before the run: python3 of alice (pid 4711), 12000 MiB of its memory.",
    ),
    ("CPU starvation", host(cpu_count=4), host(cpu_count=8), {}, "The run may use 4 CPUs, 8 on like nodes."),
    (
        "CPU starvation",
        cpu(waited_s=3),
        cpu(waited_s=0.59),
        cpu(),
        "Threads of the run waited for a CPU for 30 % of the time, on like nodes for 1 %.",
    ),
    (
        "CPU starvation",
        cpu(held_s=7, quota_cpus=0.5),
        cpu(held_s=0.1, quota_cpus=4),
        cpu(held_s=0, quota_cpus=4),
        "A CPU quota of 0.5 CPUs throttled the run for 70 % of the time, like nodes for 0 %.",
    ),
    (
        "CPU starvation",
        cpu(stolen_s=0.7),
        cpu(stolen_s=0.69),
        cpu(stolen_s=0.2),
        "Its hypervisor took 7 % of one CPU's time from it (steal), 2 % from like nodes.",
    ),
    (
        "CPU starvation",
        telemetry(cpu_percent=97),
        telemetry(cpu_percent=89),
        telemetry(cpu_percent=20),
        "The host's CPUs were 97 % busy, 20 % on like nodes.",
    ),
    (
        "CPU starvation",
        host(cpu_governor="powersave"),
        host(cpu_governor="schedutil"),
        host(cpu_governor="performance"),
        "The CPU's governor is powersave, performance on like nodes.",
    ),
    (
        "slower hardware",
        memory_reads(3280),
        memory_reads(3950),
        memory_reads(4100),
        "Device memory read 3,280 GB/s, 20% below 4,100 GB/s on like nodes.",
    ),
    (
        "slow disk at model load",
        model_took(90),
        model_took(29),
        model_took(20),
        "Loading the model took 90 s, 20 s on like nodes.",
    ),
]


@pytest.mark.parametrize(("cause", "reached", "below", "others", "said"), CASES)
def test_a_cause_is_named_from_its_threshold_on(
    cause: str, reached: Change, below: Change, others: Change, said: str
) -> None:
    assert causes(reached, others) == {cause: [said]}
    assert causes(below, others) == {}
    # Like nodes that have it too: it explains nothing. Errors of the memory are never usual.
    if cause != "GPU memory errors":
        assert causes(reached, reached) == {}


def test_a_display_server_is_no_co_tenant() -> None:
    shown = with_gpu(processes=(GpuProcess(pid=1, name="Xorg", kind="graphics"),))
    assert causes(shown, {}) == {}


def test_nothing_known_is_no_cause() -> None:
    assert causes({"environment": None, "stages_s": {}}, {"environment": None}) == {}


def test_every_cause_has_a_case() -> None:
    assert set(CAUSES) - {case[0] for case in CASES} == {"other software version", "other configuration"}


@pytest.mark.parametrize(
    ("fact", "cause"),
    [
        ("driver", "other software version"),
        ("code", "other software version"),
        ("packages.torch", "other software version"),
        ("kernel", "other software version"),
        ("gpu.ecc", "other configuration"),
        ("gpu.mig", "other configuration"),
    ],
)
def test_a_fact_that_most_like_nodes_have_otherwise(fact: str, cause: str) -> None:
    other = Drift(
        hardware="NVIDIA A30", fact=fact, values={"580": ("jw3", "jw4", "jw5"), "570": ("jw2", "x1", "x2", "x3")}
    )
    assert causes({}, drift=(other,)) == {cause: [f"{fact} is 570, 580 on 3 of 3 like nodes."]}


def test_drift_of_others_and_drift_with_most_is_no_cause() -> None:
    others = Drift(hardware="NVIDIA A30", fact="driver", values={"580": ("jw2", "jw3", "jw4"), "570": ("jw5",)})
    own = Drift(hardware="NVIDIA A30", fact="cpu_count", values={"8": ("jw3", "jw4", "jw5"), "4": ("jw2",)})
    elsewhere = Drift(hardware="NVIDIA H100", fact="driver", values={"580": ("x1",), "570": ("x2",)})
    assert causes({}, drift=(others, own, elsewhere)) == {}
