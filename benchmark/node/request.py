"""The request for a run on a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.records import Code, GroupPart, Server, ServerPlace
from benchmark.secret_settings import Secrets
from benchmark.settings import ResolvedSettings, Settings


@dataclass(frozen=True)
class RunRequest:
    """What to run and where to store it. `directory` must not contain an earlier run.

    With `wait_s` the node waits for the agreed start, up to that many seconds; with `solo` it first measures alone,
    when it is its turn. `starting_lock`: a descriptor that already holds the lock on starting.lock. `text`: whether to
    write the result as text too; the controller does that for its nodes.
    """

    run_id: str
    node: str
    resolved: ResolvedSettings
    directory: Path
    wait_s: int | None = None
    attempt: int = 1
    solo: bool = False
    starting_lock: int | None = None
    text: bool = True
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    code: Code | None = None
    """The version of the code."""
    owner: str = ""
    """The run's owner, in words. If set, no other run of this project measures here at the same time."""
    first_step: int = 1
    """Of a sweep: earlier steps were measured in previous attempts."""
    burst_qps: float | None = None
    """The rate that a sweep's rates are shares of, if a previous attempt measured it."""
    serves: ServerPlace | None = None
    """The place where it serves for a driver."""
    drives: tuple[ServerPlace, ...] = ()
    """The servers that it measures; empty: the node itself."""
    servers: tuple[Server, ...] = ()
    """Those of them that serve, once known."""
    group: GroupPart | None = None
    """The nodes that serve one copy of the model with this one; None: this node alone."""
    limit_s: int | None = None
    """The run's time limit, in seconds after its start."""
    engine_dir: Path | None = None
    """The environment of the provisioned engine; None: as in the settings, or there is none."""

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        changes: dict[str, Any] = {}
        if self.engine_dir is not None:
            changes[f"{self.resolved.profile.engine}_dir"] = str(self.engine_dir)
        if self.serves is not None:
            changes["benchmark_endpoint_urls"] = [self.serves.url]
        if self.servers:
            changes["benchmark_endpoint_urls"] = [server.url for server in self.servers]
            changes["benchmark_replicas"] = sum(server.replicas for server in self.servers)
        return self.resolved.settings.model_copy(update=changes)
