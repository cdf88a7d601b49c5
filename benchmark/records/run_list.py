"""All stored runs in short: `results/index.html`, and `python3 -m benchmark list --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark import DISCLAIMER
from benchmark.records.base import SCHEMA_VERSION, Count, Name, Record, Text

RunVerdictWord = Literal["valid", "invalid", "partial", "in progress", "no summary"]


class GroupInShort(Record):
    """The sums of one group of like nodes; unlike nodes are never added up."""

    label: Text
    nodes: Count
    qps: float | None = None
    tokens_per_s: float | None = None
    knee: Text = Field("", description="for a sweep: where its curve bends, in words; the figures are of its best step")
    probes: tuple[Text, ...] = Field((), description="if no query was measured: the figures of the hardware, in words")


class RunInShort(Record):
    """One run. Its figures are absent if it has no summary."""

    run_id: Name
    created_at: Name = Field(description="UTC, ISO 8601")
    verdict: RunVerdictWord = Field(
        description="partial: ended early; in progress: its playbook runs on this machine; no summary: its "
        "controller was killed, or is another machine"
    )
    profiles: tuple[Name, ...]
    models: tuple[Text, ...] = Field(description="what was measured: model, revision, precision, device")
    asked: Count
    counted: Count | None = Field(None, description="nodes whose numbers are part of the sums; absent: unknown")
    nodes: tuple[Name, ...] = Field(description="all nodes of the run")
    system: bool = Field(False, description="whether the nodes were one system, whose figures are not a sum")
    groups: tuple[GroupInShort, ...] = ()
    not_hardware: Text = Field("", description="why the numbers say nothing about the hardware; empty: they do")
    weight: Name = Field(description="of what to look at first: bad, unsure or fine")
    first: Text = Field(description="what to look at first")
    why: Text = Field(description="the same in full")
    report: Text = Field("", description="path of its report.html; empty: none")


class RunList(Record):
    """Runs of a results directory, newest first."""

    schema_version: Literal[1] = SCHEMA_VERSION
    disclaimer: Text = DISCLAIMER
    runs: tuple[RunInShort, ...]
    matching: Count = Field(description="runs that match the filters, including those beyond the limit")
    stored: Count = Field(description="all runs that can be read")
    skipped: tuple[Text, ...] = Field((), description="runs that could not be read, and why")
