"""What the nodes' results amount to together: `aggregated_datacenter_results.json`."""

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
    values: tuple[float, ...] = Field(description="of each repeat, in their order")
    median: float
    lowest: float
    highest: float
    cv: float = Field(description="coefficient of variation: the sample's standard deviation over the mean")
    stable: bool = Field(description="whether the coefficient of variation is at most 0.05")


class Roofline(Record):
    """What one GPU's own memory and matrix rate allow at best, by its probes, and what was measured beside it.

    Limits, not targets: with many queries in flight a token's time is above its least by nature.
    """

    weights: Count = Field(description="that each token is multiplied with: all but tables that it picks a row of")
    weights_bytes: Count
    memory_read_gb_s: float | None = Field(None, description="the probe's, of the median GPU")
    matrix_tflop_s: float | None = Field(None, description="the probe's in the run's precision, of the median GPU")
    alone: bool = Field(description="whether one query at a time was in flight on a GPU")
    least_tpot_ms: float | None = Field(None, description="weights_bytes / memory_read_gb_s")
    tpot_ms: float | None = Field(None, description="the median that was measured")
    times_least_tpot: float | None = Field(None, description="tpot_ms / least_tpot_ms")
    most_tokens_per_s: float | None = Field(
        None,
        description="output tokens of one GPU: the matrix rate over 2 x weights for each token of prompt and answer",
    )
    tokens_per_s: float | None = Field(None, description="output tokens of one GPU that were measured")
    share_of_most_tokens: float | None = Field(None, description="tokens_per_s / most_tokens_per_s")


class NodeRow(Record):
    """One node in the cluster summary. Values are absent where the node has none."""

    node: Name
    members: tuple[Name, ...] = Field((), description="of a group that serves one copy of the model: its nodes")
    status: Literal["complete", "interrupted", "failed", "missing", "refused", "in progress"]
    counted: bool = Field(description="whether its numbers are part of the totals")
    attempt: Count | None = Field(None, description="the attempt that measured it; absent: none did")
    reason: Text = Field("", description="why it failed or is invalid; empty for a valid node")
    stage: Text = Field("", description="in which stage it failed or was interrupted; empty for a complete result")
    group: int | None = Field(None, description="index into groups, for counted nodes")
    model: Text = Field("", description="what the numbers are of: model, revision, precision, device")
    gpu: Text | None = None
    gpus: Count = 0
    simulated: bool = False
    fallback: Text = Field("", description="which engine answered instead of the profile's, and why; empty: its own")
    metrics: Metrics | None = None
    probes: HardwareProbes | None = None
    roofline: Roofline | None = Field(None, description="absent: no probes of a GPU, or the weights are not known")
    energy: Energy | None = None
    cost: Cost | None = Field(None, description="absent: it has no benchmark_cost_per_gpu_hour, or no GPU answered")
    goodput: Goodput | None = Field(None, description="absent: there are no limits of TTFT or TPOT, or it is undefined")
    prefix_cache: PrefixCache | None = Field(None, description="absent: the engine is no server, or nothing is kept")
    rate: Text = Field("", description="queries per second, where a schedule sets it; or searched")
    load: Load | None = Field(None, description="of a closed loop or a sweep: what was asked of the node")
    rouge: Rouge | None = None
    audit: Text = Field("", description="what the compliance test came to, where one was run")
    host_vars: Text = Field("", description="what to set to measure at the target again, where it was searched for")
    verdict: Verdict | None = None
    solo: tuple[SoloChange, ...] = Field((), description="where it was measured alone too")
    spread: tuple[Spread, ...] = Field((), description="where there are several repeats")
    served: ServedShare | None = Field(None, description="of the system's queries; absent: it is a system by itself")

    @property
    def in_progress(self) -> bool:
        """Whether nothing can be said of it yet."""
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
    energy_nodes: Count = Field(0, description="nodes whose GPUs' counters told; the three below cover these alone")
    energy_joules: float | None = Field(None, description="their sum over the measuring windows: not the wall's")
    tokens_per_joule: float | None = None
    joules_per_query: float | None = None
    cost: Cost | None = Field(None, description="of all nodes together; absent: one of them has none")
    goodput: Goodput | None = Field(None, description="the sum over the nodes; absent: undefined for one of them")
    spread: tuple[Spread, ...] = Field((), description="of the group's figures, where there are several repeats")


class Overlap(Record):
    """How long all counted nodes measured at the same time, how long any did, and how nearly together they began."""

    together_s: float
    any_s: float
    skew_ms: float | None = Field(None, description="latest start minus earliest start")
    uncertainty_ms: float | None = Field(
        None, description="of the skew, from the clocks' offsets; absent: by the nodes' own clocks, compared unmeasured"
    )
    late_ms: dict[Name, float] = Field(
        default_factory=dict, description="nodes that began a tenth of a second or more after the agreed time"
    )


class RepeatRow(Record):
    """One repeat of the whole run."""

    number: Count
    value: float | None = Field(description="of the counted nodes together, of the metric that decides")
    valid: Count = Field(description="counted nodes that are valid in it")
    overlap: Overlap | None = Field(None, description="absent where not all were measured in one attempt")


class Repeats(Record):
    """The repeats of a run, and which one all figures are taken from."""

    chosen: Count = Field(description="the median repeat, by the metric below; of two middle ones the worse")
    metric: Name
    rows: tuple[RepeatRow, ...]


class MeasuredAttempt(Record):
    """The counted nodes that one attempt at a resumed run measured, and how nearly together they did."""

    number: Count
    at: Name
    nodes: tuple[Name, ...]
    overlap: Overlap | None = None


class Disagreement(Record):
    """A node whose greedy tokens differ from those of nodes that are alike."""

    node: Name
    prompt: Name = Field(description="the first prompt in which it differs")
    position: Count = Field(description="the first token that differs, from 0")
    others: tuple[Name, ...] = Field(description="the nodes that it was held against")


class Agreement(Record):
    """Nodes with the same hardware, precision, model and software, and whether they give the same greedy tokens."""

    nodes: tuple[Name, ...]
    prompts: Count
    disagreements: tuple[Disagreement, ...] = ()


class Drift(Record):
    """A fact in which nodes with the same GPU model (without a GPU: the same CPU) differ."""

    hardware: Text
    fact: Name
    values: dict[Text, tuple[Name, ...]] = Field(description="value -> nodes, the most frequent first")


class Finding(Record):
    """A node, or a GPU of it, that is slow among its peers or against its own history, and the probable cause."""

    node: Name
    place: Text = Field("", description="the GPU, or from which to which, that is slow; empty: the node as a whole")
    metric: Name = Field(
        description="the most telling one in which it is slow; tokens_per_joule: energy; probe.<name>: of the hardware"
    )
    unit: Text = Field("", description="of a probe's figure; other metrics have theirs in their names")
    value: float
    expected: float = Field(description="median of the like nodes, or of the node's earlier runs")
    change: float = Field(description="value / expected - 1")
    against: Text = Field(description="what it was held against, in words")
    also: tuple[Text, ...] = Field((), description="what else it is worse in, in words")
    cause: Text = Field("", description="empty: no cause was seen")
    evidence: tuple[Text, ...] = Field((), description="what speaks for the cause, a sentence each")


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
    overlap: Overlap | None = Field(description="absent where no node measured, or not all in one attempt")
    attempts: tuple[MeasuredAttempt, ...] = Field((), description="where the counted nodes come from several")
    repeats: Repeats | None = Field(None, description="where there are several; all other figures are of one of them")
    sweep: Curves | None = Field(None, description="where the profile is a sweep; all other figures are of one step")
    agreements: tuple[Agreement, ...] = ()
    drift: tuple[Drift, ...] = ()
    findings: tuple[Finding, ...] = Field((), description="slow nodes, the worst first")
    partial: Text = Field(
        "", description="why not all was measured: it was ended before its time, or goes on; empty: neither"
    )
    in_progress: bool = Field(False, description="whether the run still went on when this was made")
    problems: tuple[Text, ...] = Field((), description="files that were refused, by name")
    system: SystemResult | None = Field(
        None, description="where all nodes are one system: nothing is a sum; absent: each is one by itself"
    )
    verdict: Verdict
