"""What one node says of its run: `mlperf_datacenter_<node>_<timestamp>.json`."""

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
    """The system under test, as it really ran."""

    name: Name
    simulated: bool = Field(False, description="no model was run: the numbers say nothing about the hardware")
    replicas: Annotated[int, Field(ge=1)] = Field(1, description="GPUs (or, on the CPU, processes) that answered")
    details: dict[Name, JsonValue] = Field(default_factory=dict, description="dtype, device map, attention, ...")


class DatasetInfo(Record):
    """Which prompts."""

    name: Name
    prompts: Count
    sha256: Name


class LoadGenResult(Record):
    """What MLCommons LoadGen said of a run, verbatim from its logs; nothing is derived again."""

    version: Text = Field("", description="of LoadGen")
    scenario: Literal["Server", "Offline", "SingleStream"]
    mode: Name
    valid: bool | None = Field(None, description="LoadGen's verdict; absent in accuracy mode")
    constraints: dict[Name, bool] = Field(default_factory=dict, description="what the verdict rests on")
    reasons: tuple[Text, ...] = Field((), description="what LoadGen says to an invalid run, and of early stopping")
    results: dict[Name, JsonValue] = Field(default_factory=dict, description="every figure of the detailed log")
    summary: dict[Name, Text] = Field(default_factory=dict, description="what LoadGen prints for people, as it does")
    settings: dict[Name, JsonValue] = Field(default_factory=dict, description="the settings in effect")
    errors: tuple[Text, ...] = Field((), description="errors that LoadGen logged, the first hundred")
    error_count: Count = Field(0, description="how many there were; 0 in results of earlier versions too")

    @field_validator("results")
    @classmethod
    def _of_64_bits(cls, value: dict[Name, JsonValue]) -> dict[Name, JsonValue]:
        # JSON's integers have no end, and LoadGen's do: a larger one could not be computed with.
        for name, figure in value.items():
            if isinstance(figure, int) and abs(figure) >= 2**64:
                raise ValueError(f"{name} is not one of LoadGen's figures")
        return value


class Rouge(Record):
    """Agreement of the answers with the dataset's references: F-measures in percent, as MLPerf's evaluation rounds."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 # its name everywhere
    rougeLsum: float  # noqa: N815
    generated_characters: Count = Field(description="of all answers together (MLPerf's gen_len)")
    answers: Count
    references: Count = Field(description="prompts of the dataset that have a reference")


class Accuracy(Record):
    """What the answers were worth."""

    rouge: Rouge | None = Field(None, description="absent: the dataset has no references")
    greedy: dict[Name, tuple[int, ...]] = Field(
        default_factory=dict, description="prompt -> tokens without sampling, which like nodes must agree in"
    )
    loadgen: LoadGenResult | None = None
    errors: Count = Field(0, description="queries of the accuracy run that failed")
    error: Text = Field("", description="what the first of them failed with")


class Audit(Record):
    """What one of MLPerf's compliance tests came to."""

    name: Literal["TEST06"]
    passed: bool = Field(description="by the reference's rules, and ours where they are stricter")
    checks: tuple[Text, ...] = Field(description="each rule and how many answers broke it, a sentence each")
    answers: Count = Field(description="that LoadGen logged in the audit run")
    end_tokens: tuple[Count, ...] = Field(description="what was taken for the end of a sequence")
    errors: Count = Field(0, description="queries of the audit run that failed, logged or not")
    loadgen: LoadGenResult = Field(description="of the audit run: too short for a verdict that says anything")


class Probe(Record):
    """One short run of the peak search."""

    target_qps: float
    valid: bool
    reasons: tuple[Text, ...] = ()
    qps: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None


class PeakSearch(Record):
    """How the target was found; the full-length run at it alone decides."""

    target_qps: float | None = Field(description="highest target that a probe found valid; absent: none was")
    settled: bool = Field(description="whether the next higher target that was tried lies within the precision")
    probes: tuple[Probe, ...]
    host_vars: Text = Field("", description="what to put into host_vars/<node>.yml to measure at this target again")


class Window(Record):
    """When the node measured, by its own wall clock: what lets the cluster say whether nodes measured together."""

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
    """The same profile in the same process, measured while no other node did."""

    window: Window
    metrics: Metrics
    loadgen: LoadGenResult | None = None


class Repeat(Record):
    """A further measurement of the profile in the same process: everything that the first one has."""

    number: Annotated[int, Field(ge=2)] = Field(description="of the repeats; the first is the result's own fields")
    load: Load | None = Field(None, description="of a sweep's step; absent: the same as the first one's")
    window: Window
    metrics: Metrics
    loadgen: LoadGenResult | None = None
    telemetry: Telemetry | None = None
    cpu: CpuTime | None = None
    serving: Serving | None = None
    verdict: Verdict | None = Field(None, description="absent while the run goes on")


class ServedWindow(Record):
    """One measurement that a node only served in."""

    window: Window = Field(description="the driver's, by this node's clock")
    telemetry: Telemetry | None = None


class NodeResult(Record):
    """`mlperf_datacenter_<node>_<timestamp>.json`. Written first as `interrupted`, replaced when the run ends."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    run_id: Name
    node: Name
    attempt: Count = Field(1, description="of the run's attempts, the one that started it")
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
    engine: EngineInfo | None = Field(None, description="absent too where the hardware alone is probed")
    dataset: DatasetInfo | None = None
    arrivals_sha256: Text = Field(
        "", description="of the times of a schedule, at one query per second (of a trace: its own); empty: it has none"
    )
    warmup: Count = Field(0, description="queries before the window, in no number")
    warmup_ms: float | None = Field(
        None, description="median latency of these, one at a time; LoadGen plans SingleStream by it; absent: none"
    )
    target_qps: float | None = Field(None, description="the whole node's: per GPU times the GPUs that answered")
    peak: PeakSearch | None = Field(None, description="where benchmark_target_qps is auto")
    load: Load | None = Field(
        None, description="once it was measured, of a closed loop or a sweep: what was asked of the system"
    )
    window: Window | None = None
    metrics: Metrics | None = None
    loadgen: LoadGenResult | None = None
    accuracy: Accuracy | None = None
    audit: Audit | None = Field(None, description="where benchmark_audit asks for one")
    solo: Solo | None = Field(None, description="where benchmark_solo_first asks for it and there are several nodes")
    repeats: tuple[Repeat, ...] = Field(
        (), description="from the second on, where benchmark_repeats or a sweep asks for several"
    )
    sweep_ended: Text = Field("", description="why the sweep has no further steps; empty: there is none, or it goes on")
    served: tuple[ServedWindow, ...] = Field(
        (), description="of a node that serves while a driver measures: its measurements, the first too"
    )
    telemetry: Telemetry | None = Field(None, description="what was watched while measuring")
    cpu: CpuTime | None = Field(None, description="what the run had of the CPU while measuring")
    serving: Serving | None = Field(None, description="dealings with servers while measuring; absent: there are none")
    verdict: Verdict | None = None
    stages_s: dict[Name, float] = Field(default_factory=dict, description="seconds that each stage took")
