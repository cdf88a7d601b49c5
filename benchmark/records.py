"""The records that the result files hold, shared by the node's half and the cluster's half.

Every record refuses fields that it does not know. A change of meaning raises SCHEMA_VERSION, and readers refuse a
version that they do not know by name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from benchmark import DISCLAIMER
from benchmark.settings import ResolvedSettings

SCHEMA_VERSION: Literal[1] = 1

Count = Annotated[int, Field(ge=0)]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

Status = Literal["complete", "interrupted", "failed"]
Stage = Literal[
    "preflight",
    "python_env",
    "hf_cache",
    "environment",
    "loading",
    "warm-up",
    "searching",
    "ready",
    "measuring",
    "accuracy",
    "done",
    "fetch",
]


class Record(BaseModel):
    """Base of every record: immutable, no unknown fields, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sample(Record):
    """One query. Times are nanoseconds of the node's monotonic clock since the measuring window began."""

    index: Count = Field(description="position in the schedule")
    prompt_id: Name = Field(description="which prompt of the dataset")
    scheduled_ns: Nanoseconds | None = Field(
        None, description="when the scenario wanted the query to be issued; absent: LoadGen told it only at its end"
    )
    issued_ns: Nanoseconds = Field(description="when it was given to the engine")
    first_token_ns: Nanoseconds | None = Field(None, description="when the first output token was there")
    completed_ns: Nanoseconds | None = Field(None, description="when the last output token was there; absent: failed")
    reported_ns: Nanoseconds | None = Field(None, description="when LoadGen was told of the completion")
    input_tokens: Count = Field(0, description="tokens of the prompt, chat template included")
    output_tokens: Count = Field(0, description="what tokens/s counts: from ids, or from the server's own usage")
    token_ids: tuple[int, ...] = Field((), description="the output's tokens; absent where a server does not tell them")
    error: Text | None = Field(None, description="why the query failed")

    @model_validator(mode="after")
    def _in_order(self) -> Sample:
        moments = (self.scheduled_ns, self.issued_ns, self.first_token_ns, self.completed_ns, self.reported_ns)
        times = [t for t in moments if t is not None]
        if times != sorted(times):
            raise ValueError("scheduled, issued, first-token and completed times are not in order")
        if (self.completed_ns is None) == (self.error is None):
            raise ValueError("a sample has either a completed time or an error")
        if self.error is None and self.output_tokens and self.first_token_ns is None:
            raise ValueError("a sample with output tokens has no first-token time")
        if self.token_ids and len(self.token_ids) != self.output_tokens:
            raise ValueError("a sample counts other output tokens than it has")
        return self


class Distribution(Record):
    """A distribution of times in milliseconds. A percentile named in `insufficient` rests on too few samples."""

    count: Annotated[int, Field(ge=1)]
    mean: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    insufficient: dict[str, int] = Field(description="percentile -> samples needed for it at 99 % confidence")


class QueryCounts(Record):
    """planned = completed + failed + unfinished."""

    planned: Count
    completed: Count
    failed: Count
    unfinished: Count = Field(description="never issued, or in flight when the run ended")


class Metrics(Record):
    """What samples.jsonl amounts to; docs/metrics.md has every formula. None: undefined, never zero."""

    queries: QueryCounts
    duration_s: float | None = Field(None, description="last completion minus first issue")
    qps: float | None = Field(None, description="completed queries per second of duration_s; LoadGen's own in its runs")
    input_tokens: Count = 0
    output_tokens: Count = Field(0, description="of completed queries")
    tokens_per_s: float | None = Field(None, description="output tokens per second; LoadGen's own in its runs")
    latency_ms: Distribution | None = Field(None, description="completed minus scheduled")
    latency_from_issue_ms: Distribution | None = Field(None, description="completed minus issued")
    ttft_ms: Distribution | None = Field(None, description="first token minus scheduled")
    ttft_from_issue_ms: Distribution | None = Field(None, description="first token minus issued")
    tpot_ms: Distribution | None = Field(None, description="(completed minus first token) / (tokens - 1)")
    issue_delay_ms: Distribution | None = Field(None, description="issued minus scheduled: how far the client lagged")
    report_delay_ms: Distribution | None = Field(None, description="from the last token until LoadGen heard of it")


class Check(Record):
    """One value beside its limit. `holds`: something is so (1) or is not (0), and has to be."""

    metric: Name
    value: float | None
    comparison: Literal["at_least", "at_most", "holds"]
    limit: float
    passed: bool
    note: Text = ""


class Verdict(Record):
    """Valid when every check passed and nothing else spoke against it; `reasons` says why not, a sentence each."""

    valid: bool
    checks: tuple[Check, ...] = ()
    reasons: tuple[Text, ...] = ()


class Gpu(Record):
    """One GPU that the run could see."""

    index: Count
    name: Name
    memory_mib: Count
    uuid: Text = ""


class Environment(Record):
    """What the node is: as far as it can change a number."""

    hostname: Text
    platform: Text
    cpu: Text
    cpu_count: Count
    memory_mib: Count
    python: Text
    gpus: tuple[Gpu, ...] = ()
    driver: Text | None = None
    cuda: Text | None = None
    packages: dict[Name, Text] = Field(default_factory=dict, description="installed versions")


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
    errors: tuple[Text, ...] = Field((), description="errors that LoadGen logged")

    @field_validator("results")
    @classmethod
    def _of_64_bits(cls, value: dict[Name, JsonValue]) -> dict[Name, JsonValue]:
        # JSON's integers have no end, and LoadGen's do: a larger one could not be computed with.
        for name, figure in value.items():
            if isinstance(figure, int) and abs(figure) >= 2**64:
                raise ValueError(f"{name} is no figure of LoadGen's")
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


class NodeResult(Record):
    """`mlperf_datacenter_<node>_<timestamp>.json`. Written first as `interrupted`, replaced when the run ends."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    run_id: Name
    node: Name
    status: Status
    stage: Stage = Field(description="how far the run came")
    error: Text | None = Field(None, description="why it did not complete")
    started_at: Name = Field(description="UTC, ISO 8601")
    finished_at: Name | None = None
    resolved: ResolvedSettings
    environment: Environment | None = None
    engine: EngineInfo | None = None
    dataset: DatasetInfo | None = None
    warmup: Count = Field(0, description="queries before the window, in no number")
    target_qps: float | None = Field(None, description="the whole node's: per GPU times the GPUs that answered")
    peak: PeakSearch | None = Field(None, description="where benchmark_target_qps is auto")
    window: Window | None = None
    metrics: Metrics | None = None
    loadgen: LoadGenResult | None = None
    accuracy: Accuracy | None = None
    verdict: Verdict | None = None
    stages_s: dict[Name, float] = Field(default_factory=dict, description="seconds that each stage took")


class Failure(Record):
    """`nodes/<node>/failure.json`: why the controller has no complete result of a node."""

    node: Name
    stage: Name = Field(description="the role that failed")
    reason: Text = Field(description="one sentence, or one a line")


class RunRecord(Record):
    """`run.json`: what was asked of which nodes, and how to ask it again."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: Name
    created_at: Name
    command: Text = Field(description="the command to run it again")
    versions: dict[Name, Text]
    nodes: dict[Name, ResolvedSettings]
    hosts: dict[Name, Text] = Field(default_factory=dict, description="node -> address that Ansible used")


class NodeRow(Record):
    """One node in the cluster summary. Values are absent where the node has none."""

    node: Name
    status: Literal["complete", "interrupted", "failed", "missing", "refused"]
    counted: bool = Field(description="whether its numbers are part of the totals")
    reason: Text = Field("", description="why it failed or is invalid; empty for a valid node")
    group: int | None = Field(None, description="index into groups, for counted nodes")
    gpu: Text | None = None
    gpus: Count = 0
    simulated: bool = False
    metrics: Metrics | None = None
    rouge: Rouge | None = None
    host_vars: Text = Field("", description="where the target was searched: what to set to measure at it again")
    verdict: Verdict | None = None


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


class ReadyNode(Record):
    """`nodes/<node>/ready.json`: what the controller found out about a node that is ready to measure."""

    node: Name
    launched_unix_ns: Nanoseconds = Field(description="when its module had been started, by the controller's clock")
    offset_ns: int = Field(description="the node's wall clock minus the controller's")
    uncertainty_ns: Count = Field(description="the offset is known to plus or minus this: half a round trip")
    round_trips: Count = Field(description="how many were measured; the shortest gave the offset")


class AgreedStart(Record):
    """`start.json`: when the nodes that were ready were told to begin to measure."""

    start_unix_ns: Nanoseconds = Field(description="by the controller's clock")
    margin_s: float = Field(description="how far ahead that was when it was agreed on: the time to tell every node")
    nodes: tuple[Name, ...]


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
    overlap: Overlap | None
    agreements: tuple[Agreement, ...] = ()
    problems: tuple[Text, ...] = Field((), description="files that were refused, by name")
    verdict: Verdict
