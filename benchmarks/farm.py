"""Many SSH nodes on loopback addresses of one machine, to measure what orchestrating them costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.ssh_nodes import Cluster, SshNode, keygen

# Most addresses of one sshd (OpenSSH's limit on ListenAddress).
PER_SSHD = 16
# OpenSSH's defaults, unlike in the tests: the cost of a login is measured. Of two such lines sshd uses the first.
KEY_EXCHANGES = "KexAlgorithms +curve25519-sha256\n"
# Not the network of the tests' nodes, so that both can run at the same time.
NETWORK = "127.1"


def address(number: int) -> str:
    """Return the loopback address of node `number`, from 0."""
    return f"{NETWORK}.{number // 200}.{number % 200 + 1}"


@contextlib.contextmanager
def farm(directory: Path, count: int) -> Iterator[Cluster]:
    """Start sshds for `count` nodes, named node001 and so on."""
    cluster = Cluster(directory)
    directory.mkdir()
    keygen(cluster.key)
    servers: list[SshNode] = []
    try:
        for first in range(0, count, PER_SSHD):
            numbers = range(first, min(count, first + PER_SSHD))
            addresses = [address(number) for number in numbers]
            name, more = f"sshd{first:03d}", tuple(addresses[1:])
            server = SshNode(name, addresses[0], directory / name, more, config=KEY_EXCHANGES)
            servers.append(server)
            server.start(cluster.key.with_suffix(".pub"))
            for number, one in zip(numbers, addresses, strict=True):
                cluster.nodes[f"node{number + 1:03d}"] = SshNode(f"node{number + 1:03d}", one, server.directory)
        cluster.known_hosts.write_text("".join(server.known_hosts_line() for server in servers))
        yield cluster
    finally:
        for server in servers:
            server.stop()


def tree(root: int) -> set[int]:
    """Return the ids of a process and of all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory_mib(root: int) -> float:
    """Return the memory of a process and all its descendants in MiB; shared pages count once (PSS)."""
    total_kib = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib / 1024


def end_masters(control_path: Path) -> None:
    """End ssh's open master connections, so that every run begins without any."""
    for socket in control_path.iterdir():
        subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "any"], capture_output=True, check=False)


def environment(control_path: Path) -> dict[str, str]:
    """Return the environment for a playbook without a terminal."""
    # As on a user's machine, Python writes its compiled files.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control_path), "ANSIBLE_NOCOLOR": "1"}
