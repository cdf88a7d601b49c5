"""Nodes as hosts of their own, on this machine: what is not brought to them over SSH they do not have.

Each has a network namespace with one link, to the controller, and no route beyond it; its own hostname, process table,
machine-id, home and temporary directories. The checkout and its environment are not there. Needs root and iproute2.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.integration.ssh_nodes import CHECKOUT, PORT, Cluster, SshNode, await_port, sshd_config, sshd_program

HOME = Path(pwd.getpwuid(os.geteuid()).pw_dir)
# Set aside for tests between networks (RFC 2544): no real network has it.
NETWORK = "198.18"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def why_not() -> str | None:
    """Return why this machine permits no such nodes; None where it does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    assert shutil.which("ip"), "ip is not installed (Debian: iproute2)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True)
    return None if tried.returncode == 0 else f"namespaces are not permitted: {tried.stderr.decode().strip()}"


@dataclass
class IsolatedNode(SshNode):
    """One host. Its files lie under `directory`, but it sees only its own home and /tmp of them."""

    number: int = 0

    @property
    def namespace(self) -> str:
        return f"bm{WORKER}-{self.name}"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def start(self, authorized_keys: Path) -> None:
        """Make the namespace and its link, start sshd in it, and return once it listens."""
        self.remove_network()  # what a test process that was killed left
        for place in (self.home / ".ssh", self.directory / "tmp"):
            place.mkdir(parents=True, exist_ok=True)
        if not self.host_key.exists():
            self.new_host_key()
        for source, target in ((self.host_key, "host_key"), (authorized_keys, "authorized_keys")):
            shutil.copy(source, self.home / ".ssh" / target)
        config = sshd_config(
            [f"0.0.0.0:{PORT}"], HOME / ".ssh" / "host_key", authorized_keys=HOME / ".ssh" / "authorized_keys"
        )
        (self.home / ".ssh" / "sshd_config").write_text(config)
        (self.directory / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        ip("netns", "add", self.namespace)
        ip("link", "add", self.namespace, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("address", "add", f"{self._address(1)}/30", "dev", self.namespace)
        ip("link", "set", self.namespace, "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/30", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", link, "up")
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.directory / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *apart, "sh", "-euc", self._inside()], stderr=log
            )
        await_port(self.process, (self.address, PORT), self.directory / "sshd.log")

    def stop(self) -> None:
        """End everything that runs on the node, and take its network away."""
        if self.process is not None:
            # unshare takes its child with it (--kill-child), and the first process of a table all others in it.
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        self.remove_network()

    def remove_network(self) -> None:
        for words in (("link", "delete", self.namespace), ("netns", "delete", self.namespace)):
            with suppress(subprocess.CalledProcessError):
                ip(*words)

    def _address(self, host: int) -> str:
        return f"{NETWORK}.{WORKER}.{4 * self.number + host}"

    def _inside(self) -> str:
        # The home first: its source lies where /tmp will be another one.
        lines = [
            f"hostname {self.name}",
            f"mount --bind {shlex.quote(str(self.directory / 'machine-id'))} /etc/machine-id",
            f"mount --bind {shlex.quote(str(self.home))} {shlex.quote(str(HOME))}",
            f"mount --bind {shlex.quote(str(self.directory / 'tmp'))} /tmp",
            "mount -t tmpfs none /var/tmp",
            "mount -t tmpfs none /dev/shm",
        ]
        for hidden in {CHECKOUT, Path(sys.prefix).resolve()}:
            path = shlex.quote(str(hidden))
            lines.append(f"if [ -d {path} ]; then mount -t tmpfs none {path}; fi")
        lines.append(f"exec {sshd_program()} -D -e -f {shlex.quote(str(HOME / '.ssh' / 'sshd_config'))}")
        return "\n".join(lines)


def ip(*words: str) -> None:
    """Run `ip`; raise CalledProcessError, with what it said, where it failed."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def isolated_cluster(directory: Path, names: tuple[str, ...], first: int = 0) -> Iterator[Cluster]:
    """Give nodes of these names, and leave nothing of them behind, however the block ends.

    Nodes that are there at the same time need names and numbers (from `first` on, 63 at most) of their own.
    """
    made = Cluster(directory)
    try:
        for number, name in enumerate(names, first):
            address = f"{NETWORK}.{WORKER}.{4 * number + 2}"
            made.join(IsolatedNode(name, address, directory / name, number=number))
        yield made
    finally:
        made.stop()
