"""The combined result of all nodes: `aggregated_datacenter_results.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text
from benchmark.records.cost import Cost
from benchmark.records.goodput import Goodput
from benchmark.records.node import Rouge
from benchmark.records.probes import HardwareProbes
from benchmark.records.sample import Distribution, Metrics, QueryCounts
from benchmark.records.serving import PrefixCache
from benchmark.records.sweep import Curves, Load
from benchmark.records.system import ServedShare, SystemResult
from benchmark.records.telemetry import Energy
from benchmark.records.verdict import Verdict


class SoloChange(Record):
    """One figure of a node, measured alone and then together with the others."""

    metric: Name = Field(description="a path into the metrics")
    alone: float
    together: float
    change: float = Field(description="together / alone - 1")


class Spread(Record):
    """One figure over the repeats of a run."""

    metric: Name = Field(description="a path into the metrics")
    values: tuple[float, ...] = Field(description="one of each repeat, in order")
    median: float
    lowest: float
    highest: float
    cv: float = Field(description="coefficient of variation: the sample standard deviation over the mean")
    stable: bool = Field(description="whether the coefficient of variation is at most 0.05")


class Roofline(Record):
    """What one GPU's own memory and matrix rate allow at best, according to its probes, and what was measured.

    Limits, not targets: with many queries in flight a token's time is above its least by nature.
    """

    weights: Count = Field(description="weights that each token is multiplied with: all except lookup tables")
    weights_bytes: Count
    memory_read_gb_s: float | None = Field(None, description="measured by the probe, on the median GPU")
    matrix_tflop_s: float | None = Field(
        None, description="measured by the probe in the run's precision, on the median GPU"
    )
    alone: bool = Field(description="whether one query at a time was in flight on a GPU")
    least_tpot_ms: float | None = Field(None, description="weights_bytes / memory_read_gb_s")
    tpot_ms: float | None = Field(None, description="the measured median")
    times_least_tpot: float | None = Field(None, description="tpot_ms / least_tpot_ms")
    most_tokens_per_s: float | None = Field(
        None,
        description="output tokens of one GPU: the matrix rate over 2 x weights for each token of prompt and answer",
    )
    tokens_per_s: float | None = Field(None, description="measured output tokens of one GPU")
    share_of_most_tokens: float | None = Field(None, description="tokens_per_s / most_tokens_per_s")


class NodeRow(Record):
    """One node in the cluster summary. Values are absent if the node has none."""

    node: Name
    members: tuple[Name, ...] = Field((), description="for a group that serves one copy of the model: its nodes")
    status: Literal["complete", "interrupted", "failed", "missing", "refused", "in progress"]
    counted: bool = Field(description="whether its numbers are part of the totals")
    attempt: Count | None = Field(None, description="the attempt that measured it; absent: it was not measured")
    reason: Text = Field("", description="why it failed or is invalid; empty for a valid node")
    stage: Text = Field("", description="the stage in which it failed or was interrupted; empty for a complete result")
    group: int | None = Field(None, description="index into groups, for counted nodes")
    model: Text = Field("", description="what was measured: model, revision, precision, device")
    gpu: Text | None = None
    gpus: Count = 0
    simulated: bool = False
    fallback: Text = Field(
        "", description="the engine that replaced the profile's, and why; empty: the profile's own engine ran"
    )
    metrics: Metrics | None = None
    probes: HardwareProbes | None = None
    roofline: Roofline | None = Field(None, description="absent: no probes of a GPU, or the weights are unknown")
    energy: Energy | None = None
    cost: Cost | None = Field(None, description="absent: no benchmark_cost_per_gpu_hour, or no GPU answered")
    goodput: Goodput | None = Field(None, description="absent: no limits of TTFT or TPOT, or undefined")
    prefix_cache: PrefixCache | None = Field(
        None, description="absent: the engine is not a server, or there is no cache"
    )
    rate: Text = Field("", description="queries per second if a schedule sets them; or searched")
    load: Load | None = Field(None, description="for a closed loop or a sweep: the load on the node")
    rouge: Rouge | None = None
    audit: Text = Field("", description="the outcome of the compliance test, if one was run")
    host_vars: Text = Field("", description="settings for measuring at the target again, if it was searched for")
    verdict: Verdict | None = None
    solo: tuple[SoloChange, ...] = Field((), description="if it was also measured alone")
    spread: tuple[Spread, ...] = Field((), description="if there are several repeats")
    served: ServedShare | None = Field(
        None, description="its share of the system's queries; absent: the node is a system of its own"
    )

    @property
    def in_progress(self) -> bool:
        """Whether it is still running, without a result."""
        return self.status == "in progress"


class Group(Record):
    """The sum over like nodes: same GPU model, device, precision, model, revision, profile and engine."""

    label: Text
    key: dict[Name, Text]
    nodes: tuple[Name, ...]
    gpus: Count
    qps: float | None
    tokens_per_s: float | None
    qps_per_gpu: float | None
    tokens_per_s_per_gpu: float | None
    queries: QueryCounts
    latency_ms: Distribution | None = Field(description="over the pooled samples, never an average of percentiles")
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    worst_p99_latency_ms: float | None
    worst_p99_node: Name | None
    energy_nodes: Count = Field(
        0, description="nodes with GPU energy counters; the three fields below cover only these"
    )
    energy_joules: float | None = Field(
        None, description="their sum over the measuring windows, not measured at the wall"
    )
    tokens_per_joule: float | None = None
    joules_per_query: float | None = None
    cost: Cost | None = Field(None, description="of all nodes together; absent: one of them has none")
    goodput: Goodput | None = Field(None, description="the sum over the nodes; absent: undefined for one of them")
    spread: tuple[Spread, ...] = Field((), description="of the group's figures, if there are several repeats")


class Overlap(Record):
    """How long all counted nodes measured at the same time, how long any did, and the skew of their starts."""

    together_s: float
    any_s: float
    skew_ms: float | None = Field(None, description="latest start minus earliest start")
    uncertainty_ms: float | None = Field(
        None,
        description="of the skew, from the clocks' offsets; absent: by the nodes' own clocks, offsets unknown",
    )
    late_ms: dict[Name, float] = Field(
        default_factory=dict, description="nodes that began a tenth of a second or more after the agreed time"
    )


class RepeatRow(Record):
    """One repeat of the whole run."""

    number: Count
    value: float | None = Field(description="the deciding metric of the counted nodes together")
    valid: Count = Field(description="counted nodes that are valid in this repeat")
    overlap: Overlap | None = Field(None, description="absent if not all nodes were measured in one attempt")


class Repeats(Record):
    """The repeats of a run, and which one all figures are of."""

    chosen: Count = Field(description="the median repeat, by the metric below; of two middle ones the worse")
    metric: Name
    rows: tuple[RepeatRow, ...]


class MeasuredAttempt(Record):
    """The counted nodes that one attempt at a resumed run measured, and their overlap."""

    number: Count
    at: Name
    nodes: tuple[Name, ...]
    overlap: Overlap | None = None


class Disagreement(Record):
    """A node whose greedy tokens differ from those of like nodes."""

    node: Name
    prompt: Name = Field(description="the first prompt in which it differs")
    position: Count = Field(description="the first token that differs, from 0")
    others: tuple[Name, ...] = Field(description="the nodes that it was compared with")


class Agreement(Record):
    """Nodes with the same hardware, precision, model and software, and whether they give the same greedy tokens."""

    nodes: tuple[Name, ...]
    prompts: Count
    disagreements: tuple[Disagreement, ...] = ()


class Drift(Record):
    """A fact in which nodes with the same GPU model (without a GPU: the same CPU) differ."""

    hardware: Text
    fact: Name
    values: dict[Text, tuple[Name, ...]] = Field(description="value -> nodes, most frequent first")


class Finding(Record):
    """A node, or one of its GPUs, that is slow compared with its peers or its own history, and the probable cause."""

    node: Name
    place: Text = Field("", description="the slow GPU, or pair of GPUs; empty: the node as a whole")
    metric: Name = Field(
        description="the most telling one in which it is slow; tokens_per_joule: energy; probe.<name>: of the hardware"
    )
    unit: Text = Field("", description="the unit of a probe's figure; other metrics have it in their names")
    value: float
    expected: float = Field(description="median of the like nodes, or of the node's earlier runs")
    change: float = Field(description="value / expected - 1")
    against: Text = Field(description="what it was compared with, in words")
    also: tuple[Text, ...] = Field((), description="what else is worse, in words")
    cause: Text = Field("", description="empty: no cause was seen")
    evidence: tuple[Text, ...] = Field((), description="the evidence for the cause, a sentence each")


class ClusterResult(Record):
    """`aggregated_datacenter_results.json`: made from the run's files alone."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    run_id: Name
    profile: Name
    asked: Count
    counted: Count
    nodes: tuple[NodeRow, ...]
    groups: tuple[Group, ...]
    overlap: Overlap | None = Field(description="absent if no node measured, or not all in one attempt")
    attempts: tuple[MeasuredAttempt, ...] = Field((), description="if the counted nodes come from several attempts")
    repeats: Repeats | None = Field(None, description="if there are several; all other figures are of one of them")
    sweep: Curves | None = Field(None, description="if the profile is a sweep; all other figures are of one step")
    agreements: tuple[Agreement, ...] = ()
    drift: tuple[Drift, ...] = ()
    findings: tuple[Finding, ...] = Field((), description="slow nodes, worst first")
    partial: Text = Field(
        "", description="why not everything was measured: the run was ended early, or is in progress; empty: neither"
    )
    in_progress: bool = Field(False, description="whether the run was still in progress when this was written")
    problems: tuple[Text, ...] = Field((), description="files that were refused, by name")
    system: SystemResult | None = Field(
        None, description="if all nodes are one system, and nothing is a sum; absent: each node is a system"
    )
    verdict: Verdict
