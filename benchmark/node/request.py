"""What a node is asked to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmark.records import Code
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
    engine_dir: Path | None = None
    """Where the environment of the provisioned engine is that is wanted; None: where the settings say, or none is."""

    @property
    def settings(self) -> Settings:
        """The settings as they are to be acted on."""
        asked = self.resolved.settings
        if self.engine_dir is None:
            return asked
        return asked.model_copy(update={f"{self.resolved.profile.engine}_dir": str(self.engine_dir)})
