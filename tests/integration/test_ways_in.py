"""Ways to a node other than a key and a direct connection: a password, a host in between; and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.fleet.ssh import unreachable
from benchmark.node.environments import MARK
from tests.integration.conftest import Playbooks, make_model_directory, one_package, unmarked
from tests.integration.ssh_nodes import PORT, Cluster, SshNode, keygen, loopback
from tests.integration.test_login_shells import forget

USER, PASSWORD = "bench-password", "it's a s3cret %d"


@pytest.fixture
def playbooks_of(light_venv: Path, tmp_path: Path) -> Iterator[Playbooks]:
    """Playbooks without nodes yet."""
    nodes = Cluster(tmp_path / "cluster")
    nodes.directory.mkdir()
    make_model_directory(tmp_path / "model")
    (tmp_path / "cp").mkdir()
    try:
        yield Playbooks(nodes, tmp_path, light_venv, tmp_path / "cp")
    finally:
        nodes.stop()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[str]:
    """A user with a password: root under another name, as only root may read what tests make."""
    home = tmp_path / "home"
    home.mkdir()
    forget([USER])
    add = ["useradd", "--non-unique", "--uid", "0", "--gid", "0", "--no-create-home", "--home-dir", str(home)]
    subprocess.run([*add, "--shell", "/bin/bash", USER], check=True, capture_output=True)
    crypted = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    )
    subprocess.run(["usermod", "-p", crypted.stdout.strip(), USER], check=True)
    try:
        yield USER
    finally:
        forget([USER])


def test_with_a_password(playbooks_of: Playbooks, user: str) -> None:
    config = "PasswordAuthentication yes\nPubkeyAuthentication no\nPermitRootLogin yes\n"
    for number, name in enumerate(("pass1", "pass2", "wrong")):
        playbooks_of.cluster.add(name, loopback(20 + number), config)
    login = {"ansible_user": user, "ansible_password": PASSWORD}
    hosts = {name: {**playbooks_of.cluster.host(name), **login} for name in playbooks_of.cluster.nodes}
    hosts["wrong"]["ansible_password"] = "another"
    done = playbooks_of.run("benchmark", inventory=playbooks_of.inventory(hosts))
    assert done.code == 2, done.output
    assert [done.row(name)["status"] for name in ("pass1", "pass2")] == ["complete", "complete"], done.output
    assert done.cluster["overlap"]["together_s"] > 0
    assert "Not reachable" in done.row("wrong")["reason"]
    assert PASSWORD not in done.output
    assert not list((playbooks_of.directory / "nodes").glob("*/runs/*"))


def test_each_refused_login_says_what_to_do(tmp_path: Path) -> None:
    """In the words of a real ssh and a real sshd."""
    keys = {name: tmp_path / name for name in ("missing", "stranger", "open", "locked", "broken")}
    for name in ("stranger", "open"):
        keygen(keys[name])
    keys["open"].chmod(0o644)
    locked = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", str(keys["locked"])]
    subprocess.run(locked, check=True)
    keys["broken"].write_text("no key\n")
    keys["broken"].chmod(0o600)
    nodes = Cluster(tmp_path / "cluster")
    nodes.directory.mkdir()
    node = nodes.add("node", loopback(30), "MaxAuthTries 3\n")
    closed = nodes.add("closed", loopback(31), "PubkeyAuthentication no\nKbdInteractiveAuthentication no\n"
        "PasswordAuthentication yes\nPermitRootLogin yes\n")  # fmt: skip
    accepted = [keys[name].with_suffix(".pub").read_text() for name in ("open", "locked")]
    nodes.key.with_suffix(".pub").write_text("".join(accepted))
    common = ["ssh", "-F", "none", "-p", str(PORT), "-o", f"UserKnownHostsFile={nodes.known_hosts}"]
    common += ["-o", "PreferredAuthentications=publickey", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    expected = {
        "missing": f"there is no key {keys['missing']} on this controller",
        "stranger": f"none of this controller's keys: check ansible_user, then ssh-copy-id root@{node.address}",
        "open": f"the key {keys['open']} because others can read it: chmod 600 {keys['open']}.",
        "locked": "A key with a passphrase must be loaded in the ssh-agent (ssh-add).",
        "broken": f"the file {keys['broken']} is not a private key that ssh can use",
        "many": "after too many keys: set ansible_ssh_private_key_file",
        "closed": "its sshd accepts no keys from this user, only password",
    }
    many = [word for name in ("stranger", "missing") for word in ("-i", str(keys[name]))]
    for number in range(4):
        keygen(tmp_path / f"more{number}")
        many += ["-i", str(tmp_path / f"more{number}")]
    try:
        for name, said in expected.items():
            address = closed.address if name == "closed" else node.address
            key = many if name == "many" else ["-i", str(keys.get(name, nodes.key))]
            words = [*common, *key, "-l", "root", address, "true"]
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            assert said in unreachable(done.stderr, address), done.stderr
    finally:
        nodes.stop()


# Where the host in between is seen, nodes are called no faster than sshd bears that is told nothing: ten at once.
@pytest.mark.parametrize(("said", "startups"), [("to Ansible", 10), ("in ssh's own settings", 4)])
def test_through_a_host_that_lets_few_in_at_once(playbooks_of: Playbooks, said: str, startups: int) -> None:
    cluster = playbooks_of.cluster
    cluster.add("jump", loopback(40), f"MaxStartups {startups}:100:{startups}\n")
    addresses = [loopback(41 + number) for number in range(startups + 4)]
    cluster.join(SshNode("far", addresses[0], cluster.directory / "far", more=tuple(addresses[1:])))
    settings = playbooks_of.directory / "ssh_config"
    own = f"Host {' '.join(addresses)}\n  ProxyJump {loopback(40)}\n" if said.startswith("in") else ""
    settings.write_text(
        f"{own}Host *\n  Port {PORT}\n  User root\n  IdentityFile {cluster.key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {cluster.known_hosts}\n"
    )
    jump = "" if own else f" -o ProxyJump={loopback(40)}"
    hosts = {f"far{number:02}": {"ansible_host": address} for number, address in enumerate(addresses)}
    # What is asked first, of all at once.
    few: dict[str, Any] = {"ansible_ssh_common_args": f"-F {settings}{jump}", "benchmark_sync_timeout_s": 300}
    done = playbooks_of.run("benchmark", inventory=playbooks_of.inventory(hosts, **few))
    assert done.code == 0, done.output
    assert {row["status"] for row in done.cluster["nodes"]} == {"complete"}
    assert "Accepted publickey" in (cluster.directory / "jump" / "sshd.log").read_text(), "they went that way"


def test_a_jump_host_is_named_and_nodes_behind_it_are_trusted(playbooks_of: Playbooks) -> None:
    cluster = playbooks_of.cluster
    cluster.add("jump", loopback(60))
    cluster.add("closed", loopback(61), "AllowTcpForwarding no\n")
    cluster.add("far", loopback(62))
    cluster.add("new", loopback(63))
    keys = [line for line in cluster.known_hosts.read_text().splitlines() if f"[{loopback(63)}]" not in line]
    cluster.known_hosts.write_text("\n".join(keys) + "\n")
    settings = playbooks_of.directory / "ssh_config"
    settings.write_text(
        f"Host *\n  Port {PORT}\n  User root\n  IdentityFile {cluster.key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {cluster.known_hosts}\n"
    )

    def by(*jumps: int, to: int) -> dict[str, Any]:
        words = f"-F {settings} -o ProxyJump={','.join(map(loopback, jumps))}"
        return {"ansible_host": loopback(to), "ansible_ssh_common_args": words}

    hosts = {"dead-jump": by(69, to=62), "dead": by(60, to=69), "forbidden": by(61, to=62), "unknown": by(60, to=63)}
    hosts["chain"] = by(60, 69, to=61)
    done = playbooks_of.run("preflight", inventory=playbooks_of.inventory(hosts))
    said = " ".join(done.output.split())
    assert f"The jump host {loopback(69)}, on the way to {loopback(62)}, cannot be used" in said, done.output
    assert f"{loopback(69)}: seen from the jump host, nothing answers SSH there" in said
    assert f"{loopback(62)}: the jump host does not forward connections to it" in said
    assert f"A jump host on the way to {loopback(61)} cannot reach the next one" in said
    assert f"The SSH host key of {loopback(63)} is not known" in said
    only = playbooks_of.inventory({"unknown": hosts["unknown"]})
    public = cluster.nodes["new"].host_key.with_suffix(".pub")
    listed = subprocess.run(["ssh-keygen", "-lf", str(public)], capture_output=True, text=True, check=True)
    done = playbooks_of.run("trust", "-e", f"trust_fingerprints={listed.stdout.split()[1]}", inventory=only)
    assert done.code == 0, done.output
    done = playbooks_of.run("preflight", inventory=only)
    assert "is not known" not in done.output, done.output


def test_one_address_behind_two_hosts_is_two_nodes(playbooks_of: Playbooks) -> None:
    """As of two racks with the same private addresses: what one of them lacks is not provided on the other."""
    cluster, hosts = playbooks_of.cluster, {}
    settings = playbooks_of.directory / "ssh_config"
    for number, name in enumerate(("left", "right")):
        home = playbooks_of.directory / "home" / name
        unmarked(playbooks_of.venv, home / "venv")
        node = cluster.add(name, loopback(60 + number), f"SetEnv HOME={home} OMP_NUM_THREADS=1\n")
        there = f"{node.address}:{PORT} {node.address}"
        by = f"-o HostKeyAlias=[{node.address}]:{PORT} -o 'ProxyCommand=ssh -F {settings} -W {there}'"
        hosts[name] = {"ansible_host": "10.9.9.9", "ansible_ssh_common_args": f"-F {settings} {by}"}
    settings.write_text(
        f"Host *\n  Port {PORT}\n  User root\n  IdentityFile {cluster.key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {cluster.known_hosts}\n"
    )
    more = {"python_env_dir": "~/venv", **one_package(playbooks_of.directory)}
    done = playbooks_of.run("provision", "--tags", "python_env", inventory=playbooks_of.inventory(hosts, **more))
    assert done.code == 0, done.output
    assert len(list(playbooks_of.directory.glob(f"home/*/venv/{MARK}"))) == 2, done.output


def test_a_login_that_runs_no_command_is_refused_in_one_sentence(playbooks_of: Playbooks) -> None:
    cluster = playbooks_of.cluster
    cluster.add("fine", loopback(20))
    cluster.add("forced", loopback(21), "ForceCommand echo 0; echo Use the portal instead; exit 3\n")
    cluster.add("closed", loopback(22), "ForceCommand /usr/sbin/nologin\n")
    done = playbooks_of.run("benchmark")
    assert done.code == 2, done.output
    assert done.row("fine")["status"] == "complete"
    for name, said in (
        ("forced", "exit code 3, and prints '0 Use the portal"),
        ("closed", "exit code 1, and prints 'This"),
    ):
        reason = done.row(name)["reason"]
        assert reason.startswith("preflight: The user's login shell on the node runs no command"), reason
        assert said in reason


def test_another_kind_of_connection_is_refused(playbooks_of: Playbooks) -> None:
    cluster = playbooks_of.cluster
    cluster.add("fine", loopback(20))
    hosts = {
        "fine": cluster.host("fine"),
        "other": {**cluster.host("fine"), "ansible_connection": "community.docker.docker"},
        # Older Ansible chose by itself; it knows no such plugin any more.
        "smart": {**cluster.host("fine"), "ansible_connection": "smart"},
    }
    done = playbooks_of.run("benchmark", inventory=playbooks_of.inventory(hosts))
    assert done.code != 0
    said = " ".join(done.output.split())
    assert "other: ansible_connection is community.docker.docker: only ssh and local are supported." in said
    assert "smart: ansible_connection is smart: only ssh and local are supported." in said
    assert not playbooks_of.results.exists()


def test_what_is_wrong_with_one_way_costs_no_other_node(playbooks_of: Playbooks) -> None:
    cluster, banner = playbooks_of.cluster, playbooks_of.directory / "banner"
    banner.write_text("Authorised use only. Idle sessions are timed out.\n")
    more: dict[str, dict[str, Any]] = {
        "terminal": {"ansible_ssh_extra_args": "-tt -o RequestTTY=force"},
        "no-agent": {"ansible_ssh_private_key": "a key that Ansible hands to an ssh-agent of its own"},
        "no-ssh": {"ansible_ssh_executable": "/no/ssh"},
        "no-key": {"ansible_ssh_private_key_file": "/no/key"},
    }
    for number, name in enumerate(more):
        cluster.add(name, loopback(20 + number), f"Banner {banner}\n")
    hosts = {name: {**cluster.host(name), **variables} for name, variables in more.items()}
    done = playbooks_of.run("benchmark", inventory=playbooks_of.inventory(hosts))
    assert done.code == 2, done.output
    assert done.row("terminal")["status"] == "complete", done.output
    assert "SSH_AGENT disabled" in done.row("no-agent")["reason"]
    assert "/no/ssh cannot be run on this controller (No such file or directory)" in done.row("no-ssh")["reason"]
    assert "there is no key /no/key on this controller" in done.row("no-key")["reason"]


def run_own(playbooks_of: Playbooks, play: str, hosts: dict[str, Any] | None = None) -> tuple[int, str]:
    """Run a play of somebody's own; return how it ended, and what it printed."""
    path = playbooks_of.directory / "own.yml"
    path.write_text(play)
    command = playbooks_of.command("own", inventory=playbooks_of.inventory(hosts))
    command[1] = str(path)
    process = playbooks_of.start(command)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def test_a_role_alone_opens_a_run_in_each_play(playbooks_of: Playbooks) -> None:
    for number, name in enumerate(("jw2", "jw3")):
        playbooks_of.cluster.add(name, loopback(20 + number))
    code, output = run_own(playbooks_of, "- {hosts: gpu_nodes, gather_facts: false, roles: [benchmark]}\n" * 2)
    assert code == 0, output
    for name in ("jw2", "jw3"):
        found = list(playbooks_of.results.glob(f"2*/nodes/{name}/mlperf_datacenter_*.json"))
        assert len({path.parent for path in found}) == len(found) == 2


@pytest.mark.parametrize("setting", ["strategy: free", "serial: 1"])
def test_a_play_that_goes_node_by_node_measures_nothing(playbooks_of: Playbooks, setting: str) -> None:
    """Each node would measure all of them, the second into the first one's files."""
    for number, name in enumerate(("jw2", "jw3")):
        playbooks_of.cluster.add(name, loopback(20 + number))
    code, output = run_own(playbooks_of, f"- {{hosts: gpu_nodes, gather_facts: false, {setting}, roles: [benchmark]}}")
    assert code == 2, output
    assert "but a run measures all nodes of a play together: remove it." in " ".join(output.split())
    assert not playbooks_of.results.exists()


OWN_PLAY = """\
- hosts: gpu_nodes
  gather_facts: false
  tasks:
    - {name: Settings, ansible.builtin.import_role: {name: preflight, tasks_from: controller.yml}}
    - {name: Open, ansible.builtin.import_role: {name: benchmark, tasks_from: open.yml}}
    - name: Measure
      block:
        - {name: Environment, ansible.builtin.import_role: {name: python_env}}
        - {name: Run, ansible.builtin.import_role: {name: benchmark}}
      rescue:
        - {name: Say which, ansible.builtin.debug: {msg: "not measured: {{ inventory_hostname }}"}}
    - {name: Go on, ansible.builtin.debug: {msg: "goes on: {{ inventory_hostname }}"}}
"""


def test_roles_in_a_play_of_somebodys_own_do_not_end_it(playbooks_of: Playbooks) -> None:
    cluster = playbooks_of.cluster
    for number, name in enumerate(("fine", "broken")):
        cluster.add(name, loopback(20 + number))
    hosts: dict[str, Any] = {name: cluster.host(name) for name in cluster.nodes}
    hosts["broken"]["benchmark_work_dir"] = "/proc/no"
    _, output = run_own(playbooks_of, OWN_PLAY, hosts)
    assert "goes on: fine" in output, output
    assert "goes on: broken" in output
    assert "not measured: broken" in output
    assert "not measured: fine" not in output
    failure = json.loads((playbooks_of.results / "latest/nodes/broken/failure.json").read_text())
    assert failure["stage"] == "benchmark"
