"""All nodes as one system: where each serves, who asks them, and what each had of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Status, Text
from benchmark.records.sample import Metrics
from benchmark.settings import ResolvedSettings

# The driver's name among the nodes of a run, and that of its directory.
DRIVER = "driver"
# Of a server's details: whether it answers only who has the key.
ASKS_FOR_KEY = "asks_for_key"
# How long the driver tries to connect to a server's port, in seconds, and to how many at once.
TRY_S, TRIES_AT_ONCE = 10.0, 64


class ServerPlace(Record):
    """Where a node's server listens: there, and nowhere else."""

    node: Name
    host: Name = Field(description="an address of the node, or a name that leads to it")
    port: Annotated[int, Field(ge=1, le=65535)]

    @property
    def url(self) -> str:
        """As the driver asks it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Server(Record):
    """A server that is ready."""

    node: Name
    url: Name
    replicas: Annotated[int, Field(ge=1)] = Field(description="GPUs (or, on the CPU, processes) that answer")


class System(Record):
    """In `run.json`: that all nodes are one system."""

    driver: str = Field(max_length=200, description="the node where LoadGen runs; empty: the controller")
    resolved: ResolvedSettings = Field(description="what is asked of the driver")
    servers: tuple[ServerPlace, ...]


class SystemResult(Record):
    """What the system as a whole came to: one schedule, one verdict."""

    driver: Text = Field(description="where LoadGen ran, in words")
    status: Status | None = Field(description="of the driver's run; absent: nothing of it came back")
    servers: Count = Field(description="nodes that the driver asked")
    metrics: Metrics | None = Field(None, description="of all queries together, whoever answered")
    reasons: tuple[Text, ...] = Field((), description="why it failed or is invalid, a sentence each")
    notes: tuple[Text, ...] = Field((), description="what limited it beside the servers, and what else was found")


class ServedShare(Record):
    """What one node had of the system's queries."""

    share: float | None = Field(description="of all completed queries; absent: none completed")
    errors: dict[Text, Count] = Field(default_factory=dict, description="why its queries failed -> how many did")
