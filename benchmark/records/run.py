"""What the controller keeps of a run: what was asked, and how it went with every node."""

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
    reason: Text = Field(description="one sentence, or one a line")


class Interruption(Record):
    """`interrupted.json`: the playbook was stopped before the nodes had delivered."""

    at: Name = Field(description="UTC, ISO 8601")
    by: Name = Field(description="the signal: SIGINT (Ctrl-C) or SIGTERM")


class Controller(Record):
    """The process that leads an attempt: what tells whether it is still there."""

    host: Text
    pid: Count
    started: Count = Field(description="clock ticks from its machine's start: a pid may be given to another process")


class Owner(Record):
    """Whose a run is: what its directories on the nodes are known by."""

    token: Text = Field("", description="in run.json, the order, and the run's directory on each node")
    user: Text = ""
    host: Text = Field("", description="the controller")

    @property
    def words(self) -> str:
        """In words, on one line: who it is."""
        return " ".join(f"{self.user or 'somebody'} on {self.host or 'an unknown controller'}".split())


class Attempt(Record):
    """One playbook's work on a run: the first one opened it, the others resumed it."""

    at: Name
    command: Text
    nodes: tuple[Name, ...] = Field(description="those that it was to measure")
    notes: tuple[Text, ...] = Field((), description="nodes that are new or gone, or left for later, a sentence each")
    controller: Controller | None = None
    code: Code | None = Field(None, description="that was to measure")


class RunRecord(Record):
    """`run.json`: what was asked of which nodes, and how to ask it again."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: Name
    created_at: Name
    command: Text = Field(description="the command to run it again")
    command_hides: tuple[Name, ...] = Field(
        (), description="variables that the command lacks because they are secret: to be given again"
    )
    versions: dict[Name, Text]
    nodes: dict[Name, ResolvedSettings]
    hosts: dict[Name, Text] = Field(default_factory=dict, description="node -> address that Ansible used")
    inventory: tuple[Name, ...] = Field((), description="all nodes of the inventory, also those that were not asked")
    on_command_line: tuple[Name, ...] = Field((), description="the settings that -e gave")
    token: Text = Field("", description="by which the run's directories on the nodes are known; empty: there is none")
    attempts: tuple[Attempt, ...] = Field((), description="the first one first; empty: one, by hand")
    system: System | None = Field(None, description="that all nodes are one system; absent: each is one by itself")

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, given: Any) -> Any:
        """Leave out what 0.2 said once more: that not all of the inventory was asked."""
        return {name: value for name, value in given.items() if name != "limited"} if isinstance(given, dict) else given

    @property
    def limited(self) -> bool:
        """Whether --limit left out nodes of the inventory; a run of an early version says it by its command."""
        return bool(set(self.inventory) - set(self.nodes)) if self.inventory else "--limit" in self.command.split()

    def took_part(self, node: str, attempt: int) -> bool:
        """Return whether that attempt, counted from 1, was to measure the node."""
        if not self.attempts:
            return attempt == 1 and node in self.nodes
        return 1 <= attempt <= len(self.attempts) and node in self.attempts[attempt - 1].nodes


class ReadyNode(Record):
    """`nodes/<node>/ready.json`: what the controller found out about a node that is ready to measure."""

    node: Name
    launched_unix_ns: Nanoseconds = Field(description="when its module had been started, by the controller's clock")
    offset_ns: Annotated[int, Field(gt=-(2**63), lt=2**63)] = Field(
        description="the node's wall clock minus the controller's"
    )
    uncertainty_ns: Count = Field(description="the offset is known to plus or minus this: half a round trip")
    round_trips: Count = Field(description="how many were measured; the shortest gave the offset")
    environment: Environment | None = Field(None, description="what the node says it is")
    attempt: Count = 1


class AgreedStart(Record):
    """`start.json`: when the nodes that were ready were to begin to measure."""

    attempt: Count = 1
    start_unix_ns: Nanoseconds = Field(description="by the controller's clock")
    margin_s: float = Field(description="how far ahead that was when it was agreed on: the time to tell every node")
    nodes: tuple[Name, ...]
    drift: tuple[Drift, ...] = Field((), description="for which nodes were stopped instead, with benchmark_drift: fail")
