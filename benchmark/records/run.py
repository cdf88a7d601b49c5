"""The controller's files of a run: its order, and how every node fared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from benchmark.records.base import SCHEMA_VERSION, Count, Name, Nanoseconds, Record, Text
from benchmark.records.cluster import Drift
from benchmark.records.environment import Code, Environment
from benchmark.records.system import System
from benchmark.settings import ResolvedSettings


class Failure(Record):
    """`nodes/<node>/failure.json`: why the controller has no complete result of a node."""

    node: Name
    stage: Name = Field(description="the role that failed")
    reason: Text = Field(description="one sentence, or one per line")


class Interruption(Record):
    """`interrupted.json`: the playbook was stopped before the nodes had delivered."""

    at: Name = Field(description="UTC, ISO 8601")
    by: Name = Field(description="the signal: SIGINT (Ctrl-C) or SIGTERM")


class Controller(Record):
    """The process that leads an attempt, identified so that it can be recognised if still alive."""

    host: Text
    pid: Count
    started: Count = Field(description="clock ticks since its machine's start, because a pid may be reused")


class Owner(Record):
    """The owner of a run, by which its directories on the nodes are recognised."""

    token: Text = Field("", description="in run.json, the order, and the run's directory on each node")
    user: Text = ""
    host: Text = Field("", description="the controller")

    @property
    def words(self) -> str:
        """The owner in words, on one line."""
        return " ".join(f"{self.user or 'somebody'} on {self.host or 'an unknown controller'}".split())


class Attempt(Record):
    """One playbook's work on a run: the first one opened it, the others resumed it."""

    at: Name
    command: Text
    nodes: tuple[Name, ...] = Field(description="the nodes to be measured")
    notes: tuple[Text, ...] = Field((), description="nodes that are new, gone or left for later, a sentence each")
    controller: Controller | None = None
    code: Code | None = Field(None, description="the code to measure with")


class RunRecord(Record):
    """`run.json`: the nodes with their orders, and the command to run it again."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: Name
    created_at: Name
    command: Text = Field(description="the command to run it again")
    command_hides: tuple[Name, ...] = Field(
        (), description="secret variables that the command omits, and that must be given again"
    )
    versions: dict[Name, Text]
    nodes: dict[Name, ResolvedSettings]
    hosts: dict[Name, Text] = Field(default_factory=dict, description="node -> address that Ansible used")
    inventory: tuple[Name, ...] = Field(
        (), description="all nodes of the inventory, including those left out of the run"
    )
    on_command_line: tuple[Name, ...] = Field((), description="the settings that -e gave")
    token: Text = Field("", description="identifies the run's directories on the nodes; empty: none")
    attempts: tuple[Attempt, ...] = Field((), description="in order; empty: a single one, by hand")
    system: System | None = Field(None, description="if all nodes are one system; absent: each node is a system")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, given: Any) -> Any:
        """Drop a redundant field of version 0.2: that the run did not cover all of the inventory."""
        return {name: value for name, value in given.items() if name != "limited"} if isinstance(given, dict) else given

    @property
    def limited(self) -> bool:
        """Whether --limit left out nodes of the inventory; for a run of an early version, from its command."""
        return bool(set(self.inventory) - set(self.nodes)) if self.inventory else "--limit" in self.command.split()

    def took_part(self, node: str, attempt: int) -> bool:
        """Return whether the node was to be measured in that attempt, counted from 1."""
        if not self.attempts:
            return attempt == 1 and node in self.nodes
        return 1 <= attempt <= len(self.attempts) and node in self.attempts[attempt - 1].nodes


class ReadyNode(Record):
    """`nodes/<node>/ready.json`: what the controller found out about a node that is ready to measure."""

    node: Name
    launched_unix_ns: Nanoseconds = Field(description="when its run had been started, by the controller's clock")
    offset_ns: Annotated[int, Field(gt=-(2**63), lt=2**63)] = Field(
        description="the node's wall clock minus the controller's"
    )
    uncertainty_ns: Count = Field(description="the offset is known to plus or minus this: half a round trip")
    round_trips: Count = Field(description="how many were measured; the offset is from the shortest")
    environment: Environment | None = Field(None, description="the node's own report")
    attempt: Count = 1


class AgreedStart(Record):
    """`start.json`: the time agreed for the ready nodes to begin measuring."""

    attempt: Count = 1
    start_unix_ns: Nanoseconds = Field(description="by the controller's clock")
    margin_s: float = Field(description="how far ahead it was when it was agreed, which left time to notify every node")
    nodes: tuple[Name, ...]
    drift: tuple[Drift, ...] = Field(
        (), description="because of which nodes were stopped instead, with benchmark_drift: fail"
    )
