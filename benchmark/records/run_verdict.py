"""`verdict.json`: how a run ended, in short. `benchmark_notify` sends it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text
from benchmark.records.cost import Cost
from benchmark.records.goodput import Goodput
from benchmark.records.sample import Distribution

# Limits of the lists below: the record stays under 512 KiB even with 1000 nodes.
MOST_NODES, MOST_LINES, MOST_CHARACTERS = 1000, 100, 500
Brief = Annotated[str, Field(max_length=MOST_CHARACTERS)]


class FailedNode(Record):
    """A node that is not counted."""

    node: Name
    reason: Brief


class ProbeFigure(Record):
    """One probe of like nodes: the median of the nodes' medians, and the worst place."""

    metric: Name
    unit: Text
    median: float
    worst: float | None = Field(None, description="absent: the figure only explains others")
    worst_node: Name | None = None
    worst_gpu: Count | None = None
    worst_peer: Count | None = None


class GroupFigures(Record):
    """The headline figures of like nodes. Undefined ones are absent."""

    label: Text
    nodes: Count
    gpus: Count
    qps: float | None
    qps_per_gpu: float | None
    tokens_per_s: float | None
    latency_ms: Distribution | None
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    tokens_per_joule: float | None
    cost: Cost | None = Field(None, description="absent: not every node has a price")
    goodput: Goodput | None = Field(
        None, description="under the profile's limits of TTFT and TPOT; absent: it has none"
    )
    serves: Brief = Field("", description="how many users at once, in a sentence; empty: no goodput")
    probes: tuple[ProbeFigure, ...] = ()


class BaselineChange(Record):
    """One figure compared with the baseline's."""

    label: Text
    metric: Name
    unit: Text = Field("", description="for a probe: its unit")
    node: Name | None = Field(None, description="absent: of the like nodes together")
    gpu: Count | None = Field(None, description="for a probe: the GPU; absent: the node itself, or all its GPUs")
    peer: Count | None = Field(None, description="for a copy between GPUs: the destination")
    before: float | None
    after: float | None
    change: float | None = Field(description="after / before - 1")
    outcome: Name


class AgainstBaseline(Record):
    """The change against the default baseline."""

    baseline: Text = Field("", description="the baseline's run; empty: not comparable, see note")
    outcome: Name | None = None
    changes: tuple[BaselineChange, ...] = ()
    note: Brief = ""


class SlowNode(Record):
    """A node, or one of its GPUs, that is slow compared with its peers or its own history."""

    node: Name
    place: Text = Field("", description="the GPU, or pair of GPUs; empty: the node as a whole")
    metric: Name
    value: float
    expected: float
    change: float = Field(description="value / expected - 1")
    cause: Brief = Field(description="empty: no cause was seen")


class RunVerdict(Record):
    """How a run ended. Long lists are cut; the counts are complete."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    outcome: Literal["valid", "invalid", "partial", "in progress", "broken", "refused"] = Field(
        description="partial: interrupted; in progress: written while the run was still going; "
        "broken: the summary could not be made; refused: no run was opened"
    )
    run_id: Name | None
    profile: Name | None
    ended_at: Name = Field(description="UTC, ISO 8601: when this was written")
    controller: Text = Field(description="the controller's host name")
    run_dir: Text | None
    report: Text | None = Field(description="path on the controller")
    reasons: tuple[Brief, ...] = Field(description="why it is not valid, a sentence each")
    asked_nodes: Count
    counted_nodes: Count
    failed_nodes: Count
    counted: tuple[Name, ...]
    failed: tuple[FailedNode, ...]
    figures: tuple[GroupFigures, ...]
    against_baseline: AgainstBaseline | None = Field(description="absent: no baseline, or it is this run")
    slow: tuple[SlowNode, ...]
