"""What changed between two runs: `python3 -m benchmark compare --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text
from benchmark.records.sweep import Place

Outcome = Literal["no difference", "within noise", "better", "worse", "not judged"]


class MetricChange(Record):
    """One metric in both runs. Changes are relative: -0.05 is 5 % less."""

    metric: Name = Field(description="a path into the metrics, probe.<name> or cost_<of what>: see unit")
    unit: Text = Field("", description="for a probe: its unit; for a cost: its currency")
    of: Literal["node", "all"] = Field(description="node: the mean of the nodes; all: every sample of all of them")
    before: float | None
    after: float | None
    change: float | None = Field(None, description="after / before - 1")
    low: float | None = Field(None, description="lower end of the change's 99 % confidence interval")
    high: float | None = Field(None, description="upper end of that interval")
    outcome: Outcome
    note: Text = Field("", description="why it was not judged")


class NodeChange(Record):
    """One of several nodes that became better or worse by more than nodes differ from run to run."""

    node: Name
    gpu: Count | None = Field(None, description="for a probe: the GPU; absent: the node itself, or all its GPUs")
    peer: Count | None = Field(None, description="for a copy between GPUs: the destination")
    metric: Name
    unit: Text = Field("", description="for a probe: its unit")
    before: float
    after: float
    change: float = Field(description="after / before - 1")
    low: float = Field(description="all nodes' intervals together are right at 99 % confidence")
    high: float
    outcome: Literal["better", "worse"]


class CurveChange(Record):
    """A point of a sweep's curve in both runs, at equal tokens/s per user, interpolated linearly between steps."""

    tokens_per_s_per_user: float
    per: Place = "GPU"
    before: float = Field(description="output tokens/s of a GPU, or of a replica")
    after: float
    change: float = Field(description="after / before - 1")
    low: float | None = Field(None, description="lower end of the change's 99 % confidence interval")
    high: float | None = Field(None, description="upper end of that interval")
    outcome: Outcome
    note: Text = Field("", description="why it was not judged")


class GroupChange(Record):
    """Like nodes that were measured in both runs, with the same settings on the same hardware."""

    label: Text
    nodes: tuple[Name, ...] = Field(description="the nodes that were compared: those in both runs, if any")
    system: bool = Field(False, description="whether all nodes are one system, which is compared as a whole")
    before_nodes: Count
    after_nodes: Count
    changes: tuple[MetricChange, ...]
    curve: tuple[CurveChange, ...] = Field((), description="for sweeps; the changes above are then of one step of both")
    each: tuple[NodeChange, ...] = Field((), description="single nodes that changed, if there are several")
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
    refused: tuple[Text, ...] = Field((), description="groups that differ in settings, and the settings")
    same: bool = Field(False, description="whether before and after are the same run, so that equality says nothing")
    own_baseline: tuple[Text, ...] = Field(
        (), description="groups whose baseline is the run `after` itself, so that equality says nothing"
    )
    outcome: Outcome
