"""The records that the result files hold, shared by the node's half and the cluster's half.

Every record refuses fields that it does not know. A change of meaning raises SCHEMA_VERSION, and readers refuse a
version that they do not know by name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from benchmark import DISCLAIMER
from benchmark.settings import ResolvedSettings

SCHEMA_VERSION: Literal[1] = 1

Count = Annotated[int, Field(ge=0)]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

Status = Literal["complete", "interrupted", "failed"]
Stage = Literal[
    "preflight", "python_env", "hf_cache", "environment", "loading", "warm-up", "measuring", "done", "fetch"
]


class Record(BaseModel):
    """Base of every record: immutable, no unknown fields, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sample(Record):
    """One query. Times are nanoseconds of the node's monotonic clock since the measuring window began."""

    index: Count = Field(description="position in the schedule")
    prompt_id: Name = Field(description="which prompt of the dataset")
    scheduled_ns: Nanoseconds = Field(description="when the scenario wanted the query to be issued")
    issued_ns: Nanoseconds = Field(description="when it was given to the engine")
    first_token_ns: Nanoseconds | None = Field(None, description="when the first output token was there")
    completed_ns: Nanoseconds | None = Field(None, description="when the last output token was there; absent: failed")
    input_tokens: Count = Field(0, description="token ids of the prompt, chat template included")
    token_ids: tuple[int, ...] = Field((), description="output tokens; their number is what tokens/s counts")
    error: Text | None = Field(None, description="why the query failed")

    @model_validator(mode="after")
    def _in_order(self) -> Sample:
        times = [t for t in (self.issued_ns, self.first_token_ns, self.completed_ns) if t is not None]
        if self.issued_ns < self.scheduled_ns or times != sorted(times):
            raise ValueError("scheduled, issued, first-token and completed times are not in order")
        if (self.completed_ns is None) == (self.error is None):
            raise ValueError("a sample has either a completed time or an error")
        if self.error is None and self.token_ids and self.first_token_ns is None:
            raise ValueError("a sample with output tokens has no first-token time")
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
    qps: float | None = Field(None, description="completed queries per second of duration_s")
    input_tokens: Count = 0
    output_tokens: Count = Field(0, description="of completed queries")
    tokens_per_s: float | None = Field(None, description="output tokens of completed queries per second")
    latency_ms: Distribution | None = Field(None, description="completed minus scheduled")
    latency_from_issue_ms: Distribution | None = Field(None, description="completed minus issued")
    ttft_ms: Distribution | None = Field(None, description="first token minus scheduled")
    ttft_from_issue_ms: Distribution | None = Field(None, description="first token minus issued")
    tpot_ms: Distribution | None = Field(None, description="(completed minus first token) / (tokens - 1)")
    issue_delay_ms: Distribution | None = Field(None, description="issued minus scheduled: how far the client lagged")


class Check(Record):
    """One value beside its limit."""

    metric: Name
    value: float | None
    comparison: Literal["at_least", "at_most"]
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


class Window(Record):
    """When the node measured, by its own wall clock: what lets the cluster say whether nodes measured together."""

    started_unix_ns: Nanoseconds
    ended_unix_ns: Nanoseconds

    @model_validator(mode="after")
    def _in_order(self) -> Window:
        if self.ended_unix_ns < self.started_unix_ns:
            raise ValueError("the window ends before it starts")
        return self


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
    window: Window | None = None
    metrics: Metrics | None = None
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


class Overlap(Record):
    """How long all counted nodes measured at the same time, and how long any did."""

    together_s: float
    any_s: float


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
    problems: tuple[Text, ...] = Field((), description="files that were refused, by name")
    verdict: Verdict
