"""Many nodes behind one host in between: all are asked at once, and none is lost.

JUMP_NODES=60 asks as many as there may be in a rack; the tests ask fewer, since each costs two handshakes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.fleet.command import run_command
from benchmark.fleet.login_shell import far_command
from benchmark.fleet.probe import ProbeResult, probe
from benchmark.fleet.ssh import Ssh
from tests.integration.ssh_nodes import PORT, Cluster, SshNode, loopback

NODES = int(os.environ.get("JUMP_NODES", "24"))
# sshd listens on sixteen addresses at most; nodes share them.
ADDRESSES = 15


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A jump host as sshd comes, which drops a third of those who log in beyond ten, and the nodes behind it."""
    made = Cluster(tmp_path / "cluster")
    made.directory.mkdir()
    try:
        # Who logs in takes two seconds of it, however fast the machine is.
        slow = (
            f'AuthorizedKeysFile none\nAuthorizedKeysCommand /bin/sh -c "sleep 1; cat {made.key}.pub"\n'
            "AuthorizedKeysCommandUser root\n"
        )
        made.add("jump", loopback(60), f"MaxStartups 10:30:100\n{slow}")
        first, *others = [loopback(61 + number) for number in range(ADDRESSES)]
        made.join(SshNode("far", first, made.directory / "far", more=tuple(others)))
        (made.directory / "ssh_config").write_text(
            f"Host *\n  Port {PORT}\n  User root\n  IdentityFile {made.key}\n  IdentitiesOnly yes\n  BatchMode yes\n"
            f"  UserKnownHostsFile {made.known_hosts}\n"
        )
        yield made
    finally:
        made.stop()


def way(cluster: Cluster, number: int, *, known: bool) -> Ssh:
    """Return the way to a node; `known`: whether it is seen that it leads through another host."""
    address = loopback(61 + number % ADDRESSES)
    words = ["ssh", "-F", str(cluster.directory / "ssh_config"), "-J", loopback(60), address]
    return Ssh(address, lambda line: [*words, far_command(line)], through_jump=known)


def throttled(cluster: Cluster) -> bool:
    return "MaxStartups" in (cluster.directory / "jump" / "sshd.log").read_text()


def test_many_nodes_behind_a_jump_host_are_paced(cluster: Cluster) -> None:
    asked = {f"far{number:02}": (way(cluster, number, known=True), ("echo here",)) for number in range(NODES)}
    assert asyncio.run(probe(asked)) == dict.fromkeys(asked, ProbeResult({"echo here": "here\n"}))
    assert not throttled(cluster)


def test_none_is_lost_where_the_jump_is_not_seen(cluster: Cluster) -> None:
    """As where it stands in ssh's own settings, or where each node has a worker of its own: they are called again."""

    async def ask_all() -> list[tuple[int, str, str]]:
        ways = [way(cluster, number, known=False) for number in range(NODES * 2 // 3)]
        return await asyncio.gather(*(run_command(one, "echo here", None, 120) for one in ways))

    assert {(code, out) for code, out, _ in asyncio.run(ask_all())} == {(0, "here\n")}
