"""What a node is asked to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.records import Code, GroupPart, Server, ServerPlace
from benchmark.secret_settings import Secrets
from benchmark.settings import ResolvedSettings, Settings


@dataclass(frozen=True)
class RunRequest:
    """What to run and where to put it. `directory` must not hold an earlier run.

    With `wait_s` the node waits for the agreed start, that many seconds at most; with `solo` it measures alone first,
    when it is its turn. `starting_lock`: a descriptor under which starting.lock is locked already.
    `text`: whether the result is written as text too; the controller writes that of its nodes.
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
    """Which code this is."""
    owner: str = ""
    """Whose run it is, in words. With it no other run of this project measures here at the same time."""
    first_step: int = 1
    """Of a sweep: those before it were measured in earlier attempts."""
    burst_qps: float | None = None
    """What the rates of a sweep are shares of, where an earlier attempt measured it."""
    serves: ServerPlace | None = None
    """Where it serves, for a driver to measure."""
    drives: tuple[ServerPlace, ...] = ()
    """Which servers it measures; empty: the node itself."""
    servers: tuple[Server, ...] = ()
    """Those of them that serve, once that is known."""
    group: GroupPart | None = None
    """With which nodes it serves one copy of the model; None: the node is one by itself."""
    limit_s: int | None = None
    """When it is stopped, in seconds after its start."""
    engine_dir: Path | None = None
    """Where the environment of the provisioned engine is that is wanted; None: where the settings say, or none is."""

    @property
    def settings(self) -> Settings:
        """The settings as they are to be acted on."""
        changes: dict[str, Any] = {}
        if self.engine_dir is not None:
            changes[f"{self.resolved.profile.engine}_dir"] = str(self.engine_dir)
        if self.serves is not None:
            changes["benchmark_endpoint_urls"] = [self.serves.url]
        if self.servers:
            changes["benchmark_endpoint_urls"] = [server.url for server in self.servers]
            changes["benchmark_replicas"] = sum(server.replicas for server in self.servers)
        return self.resolved.settings.model_copy(update=changes)
