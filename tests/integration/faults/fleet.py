"""Many nodes by name for one run of the playbook, nearly each with a fault of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.conftest import Playbooks
from tests.integration.faults.left_over import processes_of
from tests.integration.ssh_nodes import SshNode, loopback


@dataclass
class Fleet:
    """The nodes by name: what the inventory says of each; and those that have an sshd of their own."""

    playbooks: Playbooks
    first_address: int
    """The last number of the first address that a node with an sshd of its own has."""
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    own: dict[str, SshNode] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Nodes whose fault cannot be injected on this machine, and why."""

    def add(self, name: str, **variables: Any) -> None:
        """Add a node that shares jw2's sshd."""
        self.hosts[name] = {**self.playbooks.cluster.host("jw2"), **variables}

    def add_own(self, name: str, config: str = "", before: str = "", **variables: Any) -> SshNode:
        """Add a node with an sshd, and so with sessions and programs, of its own."""
        node = self.playbooks.cluster.add(name, loopback(self.first_address + len(self.own)), config, before)
        self.own[name] = node
        self.hosts[name] = {**self.playbooks.cluster.host(name), **variables}
        return node

    def place(self, name: str) -> Path:
        """Return a directory of the node's own."""
        return self.playbooks.directory / "nodes" / name

    def module(self, name: str) -> int | None:
        """Return the pid of the node's benchmark once it has a sample."""
        for samples in self.place(name).glob("*/*/*/samples.jsonl"):
            limit = samples.parent / "limit"
            if samples.stat().st_size and limit.exists():
                reported = subprocess.run(
                    ["pgrep", "-P", limit.read_text().strip()], capture_output=True, text=True, check=False
                )
                return int(reported.stdout) if reported.stdout else None
        return None

    def power_off(self, name: str) -> None:
        """End all that runs on a node at once, its sshd too."""
        self.own[name].stop()
        while left := processes_of(self.place(name)):
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(0.05)

    def power_on(self, name: str) -> None:
        """Start a node's sshd again."""
        self.own[name].start(self.playbooks.cluster.key.with_suffix(".pub"))

    def close(self) -> None:
        """End the nodes, and leave the cluster as it was."""
        for name, node in self.own.items():
            node.stop()
            del self.playbooks.cluster.nodes[name]
        self.playbooks.cluster.trust()


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, which may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def children(node: SshNode) -> list[int]:
    """Return the processes of the node's SSH sessions."""
    assert node.process is not None
    reported = subprocess.run(["pgrep", "-P", str(node.process.pid)], capture_output=True, text=True, check=True)
    return [int(pid) for pid in reported.stdout.split()]


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size."""
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
