"""Nodes on this machine, each a directory and a shell, on which a run is done by hand."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmark.files import write_record
from benchmark.fleet.measure import Measurement, Outcome
from benchmark.fleet.node import Node, Reports
from benchmark.fleet.remote_run import RemoteRun
from benchmark.fleet.ssh import Ssh
from benchmark.progress import Progress
from benchmark.records import RunRecord
from benchmark.resolve import resolve
from benchmark.rundir import NODES, RUN_FILE, RunOrder
from tests.unit.building import HOST, RUN_ID

T = TypeVar("T")
FACTS = HOST.model_dump_json()
# What an environment's Python is: it says that it is ready, waits for its start, and has measured.
MEASURES = f"""echo '{FACTS}' > ready.tmp; mv ready.tmp ready
flock -u 8 2>/dev/null
until [ -f go ]; do sleep 0.02; done
echo measured > samples.jsonl"""
# It says so, and measures once it is let go: what it does then follows.
READY = f"echo '{FACTS}' > ready.tmp; mv ready.tmp ready; flock -u 8"


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@dataclass
class Fleet:
    """A run of nodes, and what is reported of them."""

    directory: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    progress: list[tuple[str, str]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """The nodes in the order in which sessions were opened."""

    @property
    def run_dir(self) -> Path:
        return self.directory / RUN_ID

    def add(
        self,
        name: str,
        python: str = MEASURES,
        call: Callable[[str], list[str]] | None = None,
        order: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Node:
        """Add a node whose environment's Python is a shell script; `call` says how a command line is run there."""
        env = self.directory / "env" / name
        (env / "bin").mkdir(parents=True)
        (env / "bin/python").write_text(f"#!/bin/sh\n{python}\n")
        (env / "bin/python").chmod(0o755)
        resolved = resolve(
            {
                "benchmark_profile": "self-test",
                "benchmark_work_dir": str(self.directory / "work" / name),
                "python_env_dir": str(env),
                "benchmark_timeout_s": 60,
                "benchmark_shared_machine": True,
                "benchmark_sync_timeout_s": 60,
                **settings,
            }
        )
        place = self.run_dir / NODES / name
        place.mkdir(parents=True)
        given = {"wait_s": 60, "owner": {"token": "ours", "user": "alice", "host": "here"}, **(order or {})}
        wanted = RunOrder.model_validate({"run_id": RUN_ID, "node": name, "resolved": resolved, **given})
        write_record(place / "order.json", wanted)

        def command(line: str) -> list[str]:
            self.calls.append(name)
            return (call or here)(line)

        node = self.nodes[name] = Node(name, Ssh(name, command), wanted, place, "")
        return node

    def there(self, name: str) -> Path:
        """Return the directory of the run on the node."""
        return self.directory / "work" / name / RUN_ID / name

    @property
    def reports(self) -> Reports:
        return Reports(
            lambda node, _, reported: self.progress.append((node, reported.state)),
            lambda node, words: self.messages.append((node, words)),
        )

    def measurement(self) -> Measurement:
        resolved = {name: node.order.resolved for name, node in self.nodes.items()}
        record = RunRecord(
            run_id=RUN_ID, created_at="2025-01-02T03:04:05+00:00", command="x", versions={}, nodes=resolved
        )
        write_record(self.run_dir / RUN_FILE, record)
        return Measurement(self.run_dir, list(self.nodes.values()), self.reports)

    def measure(self) -> Outcome:
        return run(self.measurement().run())

    def remote_run(self, node: Node) -> RemoteRun:
        return RemoteRun(node, self.reports, asyncio.Semaphore(8), 1)


def here(line: str) -> list[str]:
    """Run a command line on this machine."""
    return ["/bin/sh", "-c", line]


def noisy(before: str, after: str = ":") -> Callable[[str], list[str]]:
    """Run a command line on this machine in a shell that does more."""
    return lambda line: ["/bin/sh", "-c", f"{before}; (eval {shlex.quote(line)}); {after}"]


def progress(state: str) -> str:
    return Progress(state).text()


def failure(fleet: Fleet, name: str) -> str:
    """Return why a node failed, as its file says."""
    content: dict[str, str] = json.loads((fleet.nodes[name].place / "failure.json").read_text())
    assert (content["node"], content["stage"]) == (name, "benchmark")
    return content["reason"]
