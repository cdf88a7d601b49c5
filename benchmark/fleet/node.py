"""A node as its run sees it: its order, how to reach it, and where to report on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.fleet.ssh import Ssh
from benchmark.progress import Progress
from benchmark.rundir import RunOrder


@dataclass(frozen=True)
class Node:
    """A node's order, and how to reach the node."""

    name: str
    ssh: Ssh
    order: RunOrder
    place: Path
    """Its directory on the controller for this run."""
    secrets: str
    """The line with values that may be secret; may be empty."""
    chosen: bool = False
    """Whether CUDA_VISIBLE_DEVICES is among them."""

    @property
    def on_node(self) -> str:
        """The directory on the node that contains its directory for this run."""
        return f"{self.order.resolved.settings.benchmark_work_dir}/{self.order.run_id}"

    @property
    def stays(self) -> str:
        """A sentence that says where on the node its files are, and how to fetch them."""
        return (
            f"Its files stay on {self.name} in {self.on_node}/{self.name}: -e benchmark_resume={self.order.run_id} "
            "fetches them."
        )

    @property
    def again(self) -> str:
        """A sentence that says how to measure a node that has measured nothing."""
        return f"It has measured nothing: -e benchmark_resume={self.order.run_id} measures it."

    @property
    def claims(self) -> str:
        """How its run claims the machine, as far as is known here: see await_machine.sh."""
        settings = self.order.resolved.settings
        if self.order.drives:
            return "none"
        if settings.benchmark_shared_machine:
            return "shared"
        return "gpus" if self.chosen and settings.benchmark_device == "cuda" else "alone"

    @property
    def busy_s(self) -> int:
        """How long its run waits for other runs that measure on the machine, in seconds."""
        settings = self.order.resolved.settings
        return settings.benchmark_sync_timeout_s if settings.benchmark_busy == "wait" else 0

    @property
    def limit_s(self) -> int:
        """The time limit of its run on the node, in seconds."""
        return self.order.limit_s or self.order.resolved.settings.benchmark_timeout_s

    @property
    def limit(self) -> str:
        """The same in words."""
        timeout_s, number = self.order.resolved.settings.benchmark_timeout_s, self.order.measurements
        each = f" for each of {number} measurements" if number > 1 else ""
        waits = f", plus the time that it may wait for others: {self.limit_s} s in all" if self.order.wait_s else ""
        return f"benchmark_timeout_s = {timeout_s} s{each}{waits}"

    @property
    def ends(self) -> str:
        """The end of a sentence about a run that the request to stop did not reach: when it ends by itself."""
        return f"it ends by itself after at most {self.limit_s} s, its time limit there."

    def given(self, progress_s: int) -> list[str]:
        """Return the arguments of converse.sh. `progress_s`: how often the run reports its progress, in seconds."""
        order = self.order
        words = ["converse", self.on_node, self.name, "{mark}", str(progress_s)]
        # For start.sh.
        words += [order.owner.token, order.owner.words] if order.owner else ["", ""]
        words += [order.resolved.settings.code_dir, str(self.limit_s)]
        words += [order.environments.get("python_env", ""), order.code.sha256 if order.code else ""]
        return [*words, self.claims, str(self.busy_s)]


@dataclass(frozen=True)
class Reports:
    """Callbacks for a node's progress (before, and now), and for messages to the user."""

    progress: Callable[[str, Progress | None, Progress], None]
    message: Callable[[str, str], None]
