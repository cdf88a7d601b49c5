"""Real SSH nodes on loopback addresses: one sshd each, with host keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmark.files import write_atomic

CHECKOUT = Path(__file__).resolve().parents[2]
PORT = 2222
# What sshd_config gives every session; of two such lines sshd takes the first. A shell that is no first one leaves
# ~/.bashrc alone: what this user has there is not the nodes'. One thread: as in tests/conftest.py.
SESSION = "SetEnv SHLVL=2 OMP_NUM_THREADS=1"


def loopback(number: int) -> str:
    """Return a loopback address that no other test process listens on."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return f"127.0.{worker}.{number}"


def worker_port(base: int) -> int:
    """Return a port that no other test process uses: ::1 is the only IPv6 address of a loopback interface."""
    return base + int(loopback(1).split(".")[2])


@dataclass
class SshNode:
    """One sshd that listens on `address`."""

    name: str
    address: str
    directory: Path
    more: tuple[str, ...] = ()
    """Further addresses that it listens on, up to fifteen."""
    process: subprocess.Popen[bytes] | None = None
    config: str = ""
    """More lines for sshd_config."""
    before: str = ""
    """Shell commands before sshd, in a mount namespace of its own: what it and its sessions see there."""

    @property
    def host_key(self) -> Path:
        return self.directory / "host_key"

    def start(self, authorized_keys: Path) -> None:
        """Start sshd and return once it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.host_key.exists():
            self.new_host_key()
        config = self.directory / "sshd_config"
        listen = [f"{address}:{PORT}" for address in (self.address, *self.more)]
        config.write_text(sshd_config(listen, self.host_key, authorized_keys, self.config))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where Debian's sshd separates privileges
        log = (self.directory / "sshd.log").open("ab")
        sshd = [sshd_program(), "-D", "-e", "-f", str(config)]
        # All of these exec: the process is sshd's.
        apart = ["unshare", "--mount", "sh", "-ec", f'{self.before}\nexec "$@"', "sh"] if self.before else []
        self.process = subprocess.Popen([*apart, *sshd], stderr=log)
        await_port(self.process, (self.address, PORT), self.directory / "sshd.log")

    def stop(self) -> None:
        """End sshd and its sessions."""
        if self.process is None:
            return
        subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
        self.process.kill()
        self.process.wait()
        self.process = None

    def new_host_key(self) -> None:
        """Make a host key, as a reinstalled host would."""
        for path in (self.host_key, self.host_key.with_suffix(".pub")):
            path.unlink(missing_ok=True)
        keygen(self.host_key)

    def known_hosts_line(self) -> str:
        kind, key = self.host_key.with_suffix(".pub").read_text().split()[:2]
        return "".join(f"[{address}]:{PORT} {kind} {key}\n" for address in (self.address, *self.more))


def sshd_program() -> str:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    assert sshd, "sshd is not installed (Debian: openssh-server)"
    return sshd


def sshd_config(listen: Sequence[str], host_key: Path, authorized_keys: Path, more: str = "") -> str:
    # sshd takes the first of two lines, but the last MaxStartups.
    startups = "" if "MaxStartups" in more else "MaxStartups 1000\n"
    return (
        f"{more}{startups}"
        + "".join(f"ListenAddress {address}\n" for address in listen)
        + f"HostKey {host_key}\nPidFile none\n"
        f"AuthorizedKeysFile {authorized_keys}\nStrictModes no\nUsePAM no\nUseDNS no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxSessions 50\n"
        # The default costs each login a tenth of a second of CPU, and the tests log in thousands of times.
        "KexAlgorithms curve25519-sha256\n"
        f"Subsystem sftp internal-sftp\nPrintMotd no\n{SESSION}\n"
    )


def await_port(process: subprocess.Popen[bytes], address: tuple[str, int], log: Path) -> None:
    """Return once the process listens; fail with its log where it ends or does not."""
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"sshd on {address[0]} does not listen: {log.read_text()}")


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@dataclass
class Cluster:
    """SSH nodes, the client's key and known_hosts, and an inventory of them."""

    directory: Path
    nodes: dict[str, SshNode] = field(default_factory=dict)

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def key(self) -> Path:
        return self.directory / "client_key"

    def add(self, name: str, address: str, config: str = "", before: str = "") -> SshNode:
        """Start one more node, with more lines of sshd_config or commands before sshd, and trust its host key."""
        return self.join(SshNode(name, address, self.directory / name, config=config, before=before))

    def join(self, node: SshNode) -> SshNode:
        """Start a node that was made elsewhere and trust its host key."""
        if not self.key.exists():
            keygen(self.key)
        self.nodes[node.name] = node
        node.start(self.key.with_suffix(".pub"))
        self.trust()
        return node

    def trust(self) -> None:
        """Write every node's present host key to known_hosts, which a run may be reading."""
        write_atomic(self.known_hosts, "".join(node.known_hosts_line() for node in self.nodes.values()))

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()

    def host(self, name: str, address: str | None = None) -> dict[str, Any]:
        """Return one inventory entry: all that adding a node takes."""
        return {"ansible_host": address or self.nodes[name].address}

    def inventory(self, path: Path, variables: dict[str, Any], hosts: dict[str, Any] | None = None) -> Path:
        """Write an inventory of `hosts` (default: all nodes) with `variables` for the group; return its path."""
        group = {
            "ansible_port": PORT,
            "ansible_user": getpass.getuser(),
            "ansible_ssh_private_key_file": str(self.key),
            # Nothing of this user's own SSH settings, and only our known_hosts.
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self.known_hosts} -o IdentitiesOnly=yes",
            **variables,
        }
        entries = hosts if hosts is not None else {name: self.host(name) for name in self.nodes}
        path.write_text(yaml.safe_dump({"gpu_nodes": {"hosts": entries, "vars": group}}))
        return path
