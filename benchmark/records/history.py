"""Every node over all stored runs: `python3 -m benchmark history --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text


class HistoryPoint(Record):
    """One run of a node."""

    run_id: Name
    valid: bool
    values: dict[Name, float] = Field(description="metric -> value; what is undefined is left out")


class Shift(Record):
    """From one run on a metric was another one."""

    metric: Name
    run_id: Name = Field(description="the first run with the new level")
    previous_run_id: Name
    before: float = Field(description="median of the runs before, since the shift before this one")
    after: float = Field(description="median of the runs from then on, until the next shift")
    change: float = Field(description="after / before - 1")
    worse: bool
    runs: Count = Field(description="runs at the new level so far")
    tentative: bool = Field(description="too few runs at the new level: one more may undo it")


class DriftAt(Record):
    """What was otherwise in the first run with a new level than in the run before."""

    run_id: Name
    facts: tuple[Text, ...] = Field(description="a sentence each; empty: nothing that is recorded")


class NodeHistory(Record):
    """One node with the same settings and hardware, oldest run first."""

    node: Name
    label: Text
    comparison_key: Name = Field(description="hash of settings and hardware: equal for nodes that may be compared")
    points: tuple[HistoryPoint, ...]
    shifts: tuple[Shift, ...] = ()
    drift: tuple[DriftAt, ...] = Field((), description="one for each run at which something shifted")


class History(Record):
    """All nodes of a results directory."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    nodes: tuple[NodeHistory, ...]
    skipped: tuple[Text, ...] = Field((), description="runs that could not be read, and why")
