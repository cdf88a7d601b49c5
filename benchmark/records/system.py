"""All nodes as one system: where each serves, the driver, and each node's share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Status, Text
from benchmark.records.sample import Metrics
from benchmark.settings import ResolvedSettings

# The driver's name among the nodes of a run, and that of its directory.
DRIVER = "driver"
# Key of a server's details: whether it requires the API key.
ASKS_FOR_KEY = "asks_for_key"
# Seconds for which the driver tries to connect to a server's port, and how many it tries at once.
TRY_S, TRIES_AT_ONCE = 10.0, 64


class ServerPlace(Record):
    """The only address at which a node's server listens."""

    node: Name
    host: Name = Field(description="an address of the node, or a name that resolves to it")
    port: Annotated[int, Field(ge=1, le=65535)]

    @property
    def url(self) -> str:
        """The server's URL for the driver."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Server(Record):
    """A server that is ready."""

    node: Name
    url: Name
    replicas: Annotated[int, Field(ge=1)] = Field(description="GPUs (on the CPU: processes) that answer")


class System(Record):
    """Part of `run.json` if all nodes are one system."""

    driver: str = Field(max_length=200, description="the node where LoadGen runs; empty: the controller")
    resolved: ResolvedSettings = Field(description="the driver's order")
    servers: tuple[ServerPlace, ...]


class SystemResult(Record):
    """The result of the system as a whole: one schedule, one verdict."""

    driver: Text = Field(description="where LoadGen ran, in words")
    status: Status | None = Field(description="of the driver's run; absent: it returned nothing")
    servers: Count = Field(description="nodes that the driver sent queries to")
    metrics: Metrics | None = Field(None, description="of all queries, whichever node answered")
    reasons: tuple[Text, ...] = Field((), description="why it failed or is invalid, a sentence each")
    notes: tuple[Text, ...] = Field((), description="limits other than the servers, and further findings")


class ServedShare(Record):
    """One node's share of the system's queries."""

    share: float | None = Field(description="of all completed queries; absent: none completed")
    errors: dict[Text, Count] = Field(
        default_factory=dict, description="error -> how many of its queries failed with it"
    )
