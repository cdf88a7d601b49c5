"""What is monitored on a node while it measures: `telemetry.jsonl`, and its summary in the node's result."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field

from benchmark.records.base import Count, Name, Record, Text
from benchmark.records.environment import GpuProcess


class GpuTick(Record):
    """One GPU at one moment, as the driver reports it. Absent: not reported by this GPU."""

    index: Count
    utilisation_percent: float | None = Field(None, description="share of time in which a kernel ran")
    memory_utilisation_percent: float | None = Field(None, description="share of time in which memory was in use")
    memory_mib: Count | None = None
    sm_clock_mhz: Count | None = None
    memory_clock_mhz: Count | None = None
    power_w: float | None = None
    energy_mj: Count | None = Field(None, description="the GPU's own counter since the driver's start, read every 5 s")
    temperature_c: float | None = None
    memory_temperature_c: float | None = Field(None, description="every 6 s")
    throttle_reasons: Count | None = Field(None, description="NVML's bit mask of throttle reasons")
    pcie_tx_kib_s: Count | None = Field(None, description="every 2 s")
    pcie_rx_kib_s: Count | None = None


class Tick(Record):
    """One line of `telemetry.jsonl`."""

    t_ns: int = Field(description="by the samples' clock, since the beginning of the window; negative: before it")
    cpu_percent: float | None = Field(None, description="of all cores together, 0 to 100")
    memory_mib: Count | None = Field(
        None, description="used memory of the host; read once per second, like the network counters"
    )
    network_rx_bytes: Count | None = Field(None, description="of all interfaces but loopback, since the host started")
    network_tx_bytes: Count | None = None
    gpus: tuple[GpuTick, ...] = ()


class Energy(Record):
    """Joules by the GPUs' own counters, all of the node together: not measured at the wall socket."""

    joules: float = Field(description="in the measuring window")
    window_s: float
    idle_w: float | None = Field(
        None, description="mean power before the window, with the model loaded and without queries"
    )
    tokens_per_joule: float | None = Field(None, description="output tokens of completed queries")
    joules_per_query: float | None = Field(None, description="per completed query")


class GpuTelemetry(Record):
    """One GPU over the measuring window. Means are over time."""

    index: Count
    utilisation_percent: float | None = Field(None, description="mean")
    memory_mib_max: Count | None = None
    sm_clock_mhz: float | None = Field(None, description="mean while a kernel ran")
    sm_clock_mhz_min: Count | None = Field(None, description="lowest while a kernel ran")
    power_w: float | None = Field(None, description="mean")
    power_w_max: float | None = None
    temperature_c_max: float | None = None
    throttled: dict[Name, float] = Field(
        default_factory=dict, description="reason -> share of the window, 0 to 1; without idleness and settings"
    )
    joules: float | None = None
    ecc_corrected: Count | None = Field(None, description="new errors in the window")
    ecc_uncorrected: Count | None = None
    xid: tuple[Count, ...] = Field((), description="XID errors that the driver reported in the window")
    foreign_processes: tuple[GpuProcess, ...] = Field(
        (),
        validation_alias=AliasChoices("foreign_processes", "visitors"),  # its name before 0.2.0
        description="processes that appeared after the node was ready and computed on it when the window ended",
    )
    pcie_generation: Count | None = Field(None, description="under load")
    pcie_width: Count | None = None


class Telemetry(Record):
    """The summary of `telemetry.jsonl` in the measuring window."""

    ticks: Count
    interval_ms: Annotated[float, Field(gt=0)] = Field(description="mean time between two ticks")
    cost_percent: float = Field(description="CPU time of the monitoring itself, in percent of one core")
    cpu_percent: float | None = Field(None, description="mean of all cores together, 0 to 100")
    cpu_percent_max: float | None = None
    memory_mib_max: Count | None = None
    gpus: tuple[GpuTelemetry, ...] = ()
    energy: Energy | None = Field(None, description="absent: no GPU has a counter")
    note: Text = Field("", description="what could not be monitored, and why")


class CpuTime(Record):
    """The CPU time of the run and its child processes in the measuring window, from the kernel."""

    wall_s: Annotated[float, Field(ge=0)]
    used_s: Annotated[float, Field(ge=0)] = Field(description="of all cores together")
    waited_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="runnable threads of the run's process without a core, summed; absent: not reported"
    )
    held_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="time in which the control group's quota throttled it; absent: not reported"
    )
    quota_cpus: Annotated[float, Field(gt=0)] | None = Field(None, description="CPUs that the control group may use")
    stolen_s: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="time that a hypervisor took from busy CPUs of the node, summed; absent: not reported",
    )
