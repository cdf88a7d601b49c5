"""One node's result: `mlperf_datacenter_<node>_<timestamp>.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Nanoseconds, Record, Stage, Status, Text
from benchmark.records.environment import Environment
from benchmark.records.probes import HardwareProbes
from benchmark.records.sample import Metrics
from benchmark.records.serving import Serving
from benchmark.records.sweep import Load
from benchmark.records.telemetry import CpuTime, Telemetry
from benchmark.records.verdict import Verdict
from benchmark.settings import ResolvedSettings


class EngineInfo(Record):
    """The system under test, as it actually ran."""

    name: Name
    simulated: bool = Field(False, description="no model was run: the numbers say nothing about the hardware")
    replicas: Annotated[int, Field(ge=1)] = Field(1, description="GPUs (or, on the CPU, processes) that answered")
    details: dict[Name, JsonValue] = Field(default_factory=dict, description="dtype, device map, attention, ...")


class DatasetInfo(Record):
    """The prompts that were used."""

    name: Name
    prompts: Count
    sha256: Name


class LoadGenResult(Record):
    """LoadGen's own result, verbatim from its logs; nothing is recomputed."""

    version: Text = Field("", description="of LoadGen")
    scenario: Literal["Server", "Offline", "SingleStream"]
    mode: Name
    valid: bool | None = Field(None, description="LoadGen's verdict; absent in accuracy mode")
    constraints: dict[Name, bool] = Field(default_factory=dict, description="what the verdict depends on")
    reasons: tuple[Text, ...] = Field((), description="LoadGen's remarks on an invalid run, and on early stopping")
    results: dict[Name, JsonValue] = Field(default_factory=dict, description="every figure of the detailed log")
    summary: dict[Name, Text] = Field(default_factory=dict, description="LoadGen's summary, as printed")
    settings: dict[Name, JsonValue] = Field(default_factory=dict, description="the settings in effect")
    errors: tuple[Text, ...] = Field((), description="errors that LoadGen logged, the first hundred")
    error_count: Count = Field(0, description="how many there were; 0 in results of earlier versions too")

    @field_validator("results")
    @classmethod
    def _of_64_bits(cls, value: dict[Name, JsonValue]) -> dict[Name, JsonValue]:
        # JSON's integers are unbounded, LoadGen's are not: larger ones could break computations.
        for name, figure in value.items():
            if isinstance(figure, int) and abs(figure) >= 2**64:
                raise ValueError(f"{name} is not one of LoadGen's figures")
        return value


class Rouge(Record):
    """Agreement of the answers with the dataset's references: F-measures in percent, rounded as MLPerf does."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 # the common name
    rougeLsum: float  # noqa: N815
    generated_characters: Count = Field(description="of all answers together (MLPerf's gen_len)")
    answers: Count
    references: Count = Field(description="prompts of the dataset that have a reference")


class Accuracy(Record):
    """The accuracy of the answers."""

    rouge: Rouge | None = Field(None, description="absent: the dataset has no references")
    greedy: dict[Name, tuple[int, ...]] = Field(
        default_factory=dict, description="prompt -> tokens without sampling, which must be equal on like nodes"
    )
    loadgen: LoadGenResult | None = None
    errors: Count = Field(0, description="queries of the accuracy run that failed")
    error: Text = Field("", description="the error of the first of them")


class Audit(Record):
    """The outcome of one of MLPerf's compliance tests."""

    name: Literal["TEST06"]
    passed: bool = Field(description="by the reference's rules, or ours if they are stricter")
    checks: tuple[Text, ...] = Field(description="each rule and how many answers broke it, a sentence each")
    answers: Count = Field(description="that LoadGen logged in the audit run")
    end_tokens: tuple[Count, ...] = Field(description="tokens that count as the end of a sequence")
    errors: Count = Field(0, description="queries of the audit run that failed, logged or not")
    loadgen: LoadGenResult = Field(description="of the audit run, which is too short for a meaningful verdict")


class Probe(Record):
    """One short run of the peak search."""

    target_qps: float
    valid: bool
    reasons: tuple[Text, ...] = ()
    qps: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None


class PeakSearch(Record):
    """How the target was found; only the full-length run at it decides."""

    target_qps: float | None = Field(description="highest target that was valid in a probe; absent: none was")
    settled: bool = Field(description="whether the next higher target that was tried is within the precision")
    probes: tuple[Probe, ...]
    host_vars: Text = Field("", description="settings for host_vars/<node>.yml for measuring at this target again")


class Window(Record):
    """When the node measured, by its own wall clock: shows whether nodes measured together."""

    started_unix_ns: Nanoseconds
    ended_unix_ns: Nanoseconds
    asked_unix_ns: Nanoseconds | None = Field(
        None, description="the start agreed with the other nodes; absent: the node started on its own"
    )
    late_ms: float | None = Field(None, description="started minus asked")

    @model_validator(mode="after")
    def _in_order(self) -> Window:
        if self.ended_unix_ns < self.started_unix_ns:
            raise ValueError("the window ends before it starts")
        late_ms = None if self.asked_unix_ns is None else (self.started_unix_ns - self.asked_unix_ns) / 1e6
        if self.late_ms != late_ms:
            raise ValueError("the window is late by another time than it says")
        return self

    @classmethod
    def of(cls, started_unix_ns: int, ended_unix_ns: int, asked_unix_ns: int | None = None) -> Window:
        """Return the window between two times; with `asked_unix_ns`, also how late it began."""
        late_ms = None if asked_unix_ns is None else (started_unix_ns - asked_unix_ns) / 1e6
        return cls(
            started_unix_ns=started_unix_ns,
            ended_unix_ns=ended_unix_ns,
            asked_unix_ns=asked_unix_ns,
            late_ms=late_ms,
        )


class Solo(Record):
    """The same profile in the same process, measured while no other node was measuring."""

    window: Window
    metrics: Metrics
    loadgen: LoadGenResult | None = None


class Repeat(Record):
    """A further measurement of the profile in the same process, with all fields of the first one."""

    number: Annotated[int, Field(ge=2)] = Field(
        description="number of the repeat; the first one's figures are the result's own fields"
    )
    load: Load | None = Field(None, description="of a sweep's step; absent: the first one's")
    window: Window
    metrics: Metrics
    loadgen: LoadGenResult | None = None
    telemetry: Telemetry | None = None
    cpu: CpuTime | None = None
    serving: Serving | None = None
    verdict: Verdict | None = Field(None, description="absent while the run is in progress")


class ServedWindow(Record):
    """One measurement in which a node only served."""

    window: Window = Field(description="the driver's window, by this node's clock")
    telemetry: Telemetry | None = None


class NodeResult(Record):
    """`mlperf_datacenter_<node>_<timestamp>.json`. Written first as `interrupted`, replaced when the run ends."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    run_id: Name
    node: Name
    attempt: Count = Field(1, description="number of the run's attempt that started it")
    status: Status
    stage: Stage = Field(description="how far the run came")
    error: Text | None = Field(None, description="why it did not complete")
    started_at: Name = Field(description="UTC, ISO 8601")
    finished_at: Name | None = None
    resolved: ResolvedSettings
    environment: Environment | None = None
    probes: HardwareProbes | None = Field(
        None, description="what the hardware itself delivers, before the engine loads"
    )
    engine: EngineInfo | None = Field(None, description="also absent if only the hardware is probed")
    dataset: DatasetInfo | None = None
    arrivals_sha256: Text = Field(
        "", description="of the times of a schedule, at one query per second (of a trace: its own); empty: it has none"
    )
    warmup: Count = Field(0, description="queries before the window, not part of any number")
    warmup_ms: float | None = Field(
        None, description="median latency of these, one at a time; LoadGen plans SingleStream by it; absent: none"
    )
    target_qps: float | None = Field(None, description="the whole node's: per GPU times the GPUs that answered")
    peak: PeakSearch | None = Field(None, description="if benchmark_target_qps is auto")
    load: Load | None = Field(
        None, description="once it was measured, of a closed loop or a sweep: what was asked of the system"
    )
    window: Window | None = None
    metrics: Metrics | None = None
    loadgen: LoadGenResult | None = None
    accuracy: Accuracy | None = None
    audit: Audit | None = Field(None, description="if benchmark_audit is set")
    solo: Solo | None = Field(None, description="if benchmark_solo_first is set and there are several nodes")
    repeats: tuple[Repeat, ...] = Field((), description="from the second on, with benchmark_repeats or a sweep")
    sweep_ended: Text = Field(
        "", description="why the sweep has no further steps; empty: no sweep, or it is in progress"
    )
    served: tuple[ServedWindow, ...] = Field(
        (), description="for a node that serves while a driver measures: all its measurements, including the first"
    )
    telemetry: Telemetry | None = Field(None, description="what was monitored while measuring")
    cpu: CpuTime | None = Field(None, description="the CPU time that the run got while measuring")
    serving: Serving | None = Field(None, description="connections to servers while measuring; absent: no servers")
    verdict: Verdict | None = None
    stages_s: dict[Name, float] = Field(default_factory=dict, description="duration of each stage in seconds")
