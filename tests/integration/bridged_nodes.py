"""Nodes with a network of their own each on one bridge, on this machine: they reach each other, and nothing else.

All else is shared with this machine, so that they have the checkout and its environment. Needs root and iproute2.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.integration.isolated_nodes import NETWORK, WORKER, ip
from tests.integration.ssh_nodes import PORT, Cluster, SshNode, await_port, sshd_config, sshd_program

BRIDGE = f"bm{WORKER}-bridge"
# Above those of isolated nodes, which take 4 each.
FIRST = 249


@dataclass
class BridgedNode(SshNode):
    """An sshd in a network namespace."""

    @property
    def namespace(self) -> str:
        return f"bm{WORKER}-{self.name}"

    def start(self, authorized_keys: Path) -> None:
        """Make the namespace and its link, start sshd in it, and return once it listens."""
        self._remove_network()  # what a test process that was killed left
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.host_key.exists():
            self.new_host_key()
        config = self.directory / "sshd_config"
        config.write_text(sshd_config([f"{self.address}:{PORT}"], self.host_key, authorized_keys, self.config))
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        ip("netns", "add", self.namespace)
        ip("link", "add", self.namespace, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self.namespace, "master", BRIDGE, "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/29", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", link, "up")
        with (self.directory / "sshd.log").open("ab") as log:
            sshd = ["ip", "netns", "exec", self.namespace, sshd_program(), "-D", "-e", "-f", str(config)]
            self.process = subprocess.Popen(sshd, stderr=log)
        await_port(self.process, (self.address, PORT), self.directory / "sshd.log")

    def stop(self) -> None:
        """End sshd and its sessions, and take the network away."""
        super().stop()
        self._remove_network()

    def _remove_network(self) -> None:
        for words in (("link", "delete", self.namespace), ("netns", "delete", self.namespace)):
            with suppress(subprocess.CalledProcessError):
                ip(*words)


@contextmanager
def bridged_cluster(directory: Path, names: tuple[str, ...]) -> Iterator[Cluster]:
    """Give at most five nodes of these names, and leave nothing of them behind, however the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Cluster(directory)
    with suppress(subprocess.CalledProcessError):
        ip("link", "delete", BRIDGE)
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("address", "add", f"{NETWORK}.{WORKER}.{FIRST}/29", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(names, 1):
            made.join(BridgedNode(name, f"{NETWORK}.{WORKER}.{FIRST + number}", directory / name))
        yield made
    finally:
        made.stop()
        ip("link", "delete", BRIDGE)
