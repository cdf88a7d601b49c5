"""What changed between two runs: `python3 -m benchmark compare --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text
from benchmark.records.sweep import Place

Outcome = Literal["no difference", "within noise", "better", "worse", "not judged"]


class MetricChange(Record):
    """One metric in both. Changes are relative: -0.05 is 5 % less."""

    metric: Name = Field(description="a path into the metrics, probe.<name> or cost_<of what>: see unit")
    unit: Text = Field("", description="of a probe: its unit; of a cost: its currency")
    of: Literal["node", "all"] = Field(description="node: the mean of the nodes; all: every sample of all of them")
    before: float | None
    after: float | None
    change: float | None = Field(None, description="after / before - 1")
    low: float | None = Field(None, description="where the change lies at least, at 99 % confidence")
    high: float | None = Field(None, description="where it lies at most")
    outcome: Outcome
    note: Text = Field("", description="why it was not judged")


class NodeChange(Record):
    """One node of several that became better or worse by more than nodes do from run to run."""

    node: Name
    gpu: Count | None = Field(None, description="of a probe: the GPU; absent: the node itself, or all its GPUs")
    peer: Count | None = Field(None, description="of a copy between GPUs: the one that it went to")
    metric: Name
    unit: Text = Field("", description="of a probe: its unit")
    before: float
    after: float
    change: float = Field(description="after / before - 1")
    low: float = Field(description="all nodes' intervals together are right at 99 % confidence")
    high: float
    outcome: Literal["better", "worse"]


class CurveChange(Record):
    """What a sweep gave in both where a user gets as many tokens/s: on the straight lines between its steps."""

    tokens_per_s_per_user: float
    per: Place = "GPU"
    before: float = Field(description="output tokens/s of a GPU, or of a replica")
    after: float
    change: float = Field(description="after / before - 1")
    low: float | None = Field(None, description="where the change lies at least, at 99 % confidence")
    high: float | None = Field(None, description="where it lies at most")
    outcome: Outcome
    note: Text = Field("", description="why it was not judged")


class GroupChange(Record):
    """Like nodes that were measured in both, with the same settings on the same hardware."""

    label: Text
    nodes: tuple[Name, ...] = Field(description="whose numbers these are: the nodes that both have, if any")
    system: bool = Field(False, description="whether all nodes are one system, which is compared as a whole")
    before_nodes: Count
    after_nodes: Count
    changes: tuple[MetricChange, ...]
    curve: tuple[CurveChange, ...] = Field((), description="of sweeps; the changes above are then of one step of both")
    each: tuple[NodeChange, ...] = Field((), description="single nodes that changed, where there are several")
    outcome: Outcome
    note: Text = ""


class Comparison(Record):
    """Two runs, or two nodes of runs, and what became better or worse from the first to the second."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    before: Text
    after: Text
    floor: float = Field(description="a smaller change is never better or worse")
    confidence: float
    groups: tuple[GroupChange, ...]
    apart: tuple[Text, ...] = Field((), description="groups with equal settings on other hardware: shown, not compared")
    refused: tuple[Text, ...] = Field((), description="groups that differ in settings, and in which")
    same: bool = Field(False, description="whether before and after are one run: that they are equal says nothing")
    own_baseline: tuple[Text, ...] = Field(
        (), description="groups of which the run after is the baseline itself: that they are equal says nothing"
    )
    outcome: Outcome
