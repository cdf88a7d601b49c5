"""The result of a run in progress: there is a readable one on the disk at every moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from benchmark.files import write_record
from benchmark.node.progress import ProgressWriter
from benchmark.node.request import RunRequest
from benchmark.records import NodeResult, Stage


class OpenResult:
    """Begins as `interrupted`, in the stage `environment`. `progress` reports the run's progress."""

    def __init__(self, request: RunRequest) -> None:
        started = datetime.now(timezone.utc)
        self.path = request.directory / f"mlperf_datacenter_{request.node}_{started:%Y%m%dT%H%M%SZ}.json"
        self.progress = ProgressWriter(request.node, request.directory)
        self.result = NodeResult(
            run_id=request.run_id,
            node=request.node,
            attempt=request.attempt,
            status="interrupted",
            stage="environment",
            started_at=started.isoformat(timespec="seconds"),
            resolved=request.resolved,
        )

    @property
    def replicas(self) -> int:
        """Number of engines that answer; 1 until they are loaded."""
        return self.result.engine.replicas if self.result.engine else 1

    @contextmanager
    def stage(self, stage: Stage, total: int = 0, reported: str = "") -> Iterator[None]:
        """Within the block, be in a stage of `total` queries; `reported`: a more precise name for it, if any."""
        if stage == "measuring":
            self.set(
                stage=stage
            )  # written with the window's beginning: little is done between the start's arrival and the start
        else:
            self.update(stage=stage)
        self.progress.stage(reported or stage, total)
        began = time.monotonic()
        try:
            yield
        finally:
            # A stage may come twice: a node that measures alone first is ready before and after that.
            taken = round(time.monotonic() - began + self.result.stages_s.get(stage, 0), 3)
            self.set(stages_s={**self.result.stages_s, stage: taken})

    def set(self, **fields: Any) -> None:
        """Set fields, which are written with the next `update`."""
        # With validation, unlike model_copy: what is written is what a reader will accept.
        self.result = NodeResult.model_validate({**dict(self.result), **fields})

    def update(self, synced: bool = True, /, **fields: Any) -> None:
        """Set fields and write the result. Raises OSError."""
        self.set(**fields)
        write_record(self.path, self.result, synced)
