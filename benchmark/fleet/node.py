"""A node as its run knows it: what is asked of it, how it is reached, and to whom it is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.fleet.ssh import Ssh
from benchmark.progress import Progress
from benchmark.rundir import RunOrder


@dataclass(frozen=True)
class Node:
    """What is asked of a node, and how it is reached."""

    name: str
    ssh: Ssh
    order: RunOrder
    place: Path
    """Its directory of the run on the controller."""
    secrets: str
    """The line that holds what may be secret; it may be empty."""
    chosen: bool = False
    """Whether CUDA_VISIBLE_DEVICES is among that."""

    @property
    def on_node(self) -> str:
        """The directory on the node that holds its directory of this run."""
        return f"{self.order.resolved.settings.benchmark_work_dir}/{self.order.run_id}"

    @property
    def stays(self) -> str:
        """The sentence that says where on the node its files are, and how to get them."""
        return (
            f"Its files stay on {self.name} in {self.on_node}/{self.name}: -e benchmark_resume={self.order.run_id} "
            "fetches them."
        )

    @property
    def again(self) -> str:
        """The sentence that says how a node is measured that has measured nothing."""
        return f"It has measured nothing: -e benchmark_resume={self.order.run_id} measures it."

    @property
    def claims(self) -> str:
        """How its run wants the machine, as far as is known here: see await_machine.sh."""
        settings = self.order.resolved.settings
        if self.order.drives:
            return "none"
        if settings.benchmark_shared_machine:
            return "shared"
        return "gpus" if self.chosen and settings.benchmark_device == "cuda" else "alone"

    @property
    def busy_s(self) -> int:
        """How long its run waits for others to end that measure on the machine."""
        settings = self.order.resolved.settings
        return settings.benchmark_sync_timeout_s if settings.benchmark_busy == "wait" else 0

    @property
    def limit_s(self) -> int:
        """The time limit of its run, on the node."""
        return self.order.limit_s or self.order.resolved.settings.benchmark_timeout_s

    @property
    def limit(self) -> str:
        """In words, the same."""
        timeout_s, number = self.order.resolved.settings.benchmark_timeout_s, self.order.measurements
        each = f" for each of {number} measurements" if number > 1 else ""
        waits = f", with the time for which it may wait for others: {self.limit_s} s" if self.order.wait_s else ""
        return f"benchmark_timeout_s = {timeout_s} s{each}{waits}"

    @property
    def ends(self) -> str:
        """The end of a sentence about a run that cannot be asked to stop: when it ends by itself."""
        return f"it ends by itself, at the latest after {self.limit_s} s, its time limit there."

    def given(self, progress_s: int) -> list[str]:
        """Return what converse.sh is given there. `progress_s`: how often the run is to say how far it is."""
        order = self.order
        words = ["converse", self.on_node, self.name, "{mark}", str(progress_s)]
        # What start.sh takes.
        words += [order.owner.token, order.owner.words] if order.owner else ["", ""]
        words += [order.resolved.settings.code_dir, str(self.limit_s)]
        words += [order.environments.get("python_env", ""), order.code.sha256 if order.code else ""]
        return [*words, self.claims, str(self.busy_s)]


@dataclass(frozen=True)
class Reports:
    """Where to report how far a node is (before, and now), and what a person should know."""

    progress: Callable[[str, Progress | None, Progress], None]
    message: Callable[[str, str], None]
