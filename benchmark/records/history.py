"""Every node over all stored runs: `python3 -m benchmark history --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text


class HistoryPoint(Record):
    """One run of a node."""

    run_id: Name
    created_at: Text = Field("", description="UTC, ISO 8601")
    valid: bool
    values: dict[Name, float] = Field(description="metric -> value; undefined ones are left out")


class Shift(Record):
    """The shift of a metric at one run."""

    metric: Name
    run_id: Name = Field(description="the first run at the new level")
    previous_run_id: Name
    before: float = Field(description="median of the runs before, since the shift before this one")
    after: float = Field(description="median of the runs from then on, until the next shift")
    change: float = Field(description="after / before - 1")
    worse: bool
    runs: Count = Field(description="runs at the new level so far")
    tentative: bool = Field(description="too few runs at the new level: one more may undo it")


class DriftAt(Record):
    """What differed between the first run at a new level and the run before it."""

    run_id: Name
    facts: tuple[Text, ...] = Field(description="a sentence each; empty: no recorded fact")


class NodeHistory(Record):
    """One node with the same settings and hardware, oldest run first."""

    node: Name
    label: Text
    comparison_key: Name = Field(description="hash of settings and hardware: equal for nodes that may be compared")
    units: dict[Name, Text] = Field(default_factory=dict, description="for probes: probe.<name> -> unit")
    points: tuple[HistoryPoint, ...]
    shifts: tuple[Shift, ...] = ()
    drift: tuple[DriftAt, ...] = Field((), description="one for each run at which something shifted")


class RunOfNode(Record):
    """How one run ended for a node."""

    run_id: Name
    created_at: Name = Field(description="UTC, ISO 8601")
    profile: Name
    state: Name = Field(
        description="valid, invalid; interrupted, failed, missing, refused; partial; in progress; no summary"
    )
    stage: Text = Field("", description="the stage in which it failed or was interrupted; empty: none, or unknown")
    reason: Text = Field("", description="why it is not valid")


class NodeRuns(Record):
    """A node's newest runs of any kind: failed ones have no comparison key."""

    node: Name
    count: Count = Field(description="all stored runs with the node")
    newest: tuple[RunOfNode, ...] = Field(description="the newest ten of them, oldest first")
    failed: Count = Field(
        description="those of the newest without a complete result; partial runs, and runs in progress or without a "
        "summary, aside"
    )
    failed_in: dict[Text, Count] = Field(default_factory=dict, description="stage -> how many of them, if known")


class History(Record):
    """All nodes of a results directory."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    nodes: tuple[NodeHistory, ...]
    runs: tuple[NodeRuns, ...] = Field((), description="one for each node")
    skipped: tuple[Text, ...] = Field((), description="runs that could not be read, and why")
