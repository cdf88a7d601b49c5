"""One run of many nodes, nearly each with a fault of its own: the others' results stay whole, and each is named."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import DATA, Done, Playbooks
from tests.integration.faults import hostile
from tests.integration.faults.left_over import assert_nothing_runs, processes_of
from tests.integration.ssh_nodes import SshNode, keygen, loopback

# Long enough for every fault to come in mid-run.
SAMPLES = 300
TIMEOUT_S = 240
HEALTHY = ("fine1", "fine2")
# What is done to these while they measure, and that their results come nevertheless.
SURVIVE = ("cut", "frozen")


@dataclass
class Fleet:
    """The nodes by name: what the inventory says of each; and those that have an sshd of their own."""

    playbooks: Playbooks
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    own: dict[str, SshNode] = field(default_factory=dict)

    def add(self, name: str, **variables: Any) -> None:
        """Add a node that shares jw2's sshd."""
        self.hosts[name] = {**self.playbooks.cluster.host("jw2"), **variables}

    def add_own(self, name: str, config: str = "", **variables: Any) -> SshNode:
        """Add a node with an sshd, and so with sessions and programs, of its own."""
        node = self.playbooks.cluster.add(name, loopback(40 + len(self.own)), config)
        self.own[name] = node
        self.hosts[name] = {**self.playbooks.cluster.host(name), **variables}
        return node

    def place(self, name: str) -> Path:
        """Return a directory of the node's own."""
        return self.playbooks.directory / "nodes" / name

    def module(self, name: str) -> int | None:
        """Return the pid of the node's benchmark once it has a sample."""
        for samples in self.place(name).glob("runs/*/*/samples.jsonl"):
            limit = samples.parent / "limit"
            if samples.stat().st_size and limit.exists():
                told = subprocess.run(
                    ["pgrep", "-P", limit.read_text().strip()], capture_output=True, text=True, check=False
                )
                return int(told.stdout) if told.stdout else None
        return None


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size."""
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextmanager
def silent_port(address: str, port: int) -> Iterator[None]:
    """Accept connections and never say a word."""
    with socket.create_server((address, port)):
        yield


def unreachable_nodes(fleet: Fleet, stack: ExitStack) -> None:
    directory = fleet.playbooks.directory
    fleet.add("refused", ansible_host=loopback(99))
    stack.enter_context(silent_port(loopback(98), 2222))
    fleet.add("silent", ansible_host=loopback(98))
    fleet.add_own("changed-key")
    fleet.add_own("unknown-key")
    keygen(directory / "other_key")
    # With an sshd of its own: an open connection to another node at the same address would be shared.
    fleet.add_own("no-login", ansible_ssh_private_key_file=str(directory / "other_key"))


def spoil_known_hosts(fleet: Fleet) -> None:
    """Give one node another host key than is known of it, and forget another's."""
    cluster = fleet.playbooks.cluster
    changed, unknown = fleet.own["changed-key"], fleet.own["unknown-key"]
    changed.stop()
    changed.new_host_key()
    changed.start(cluster.key.with_suffix(".pub"))
    lines = cluster.known_hosts.read_text().splitlines(keepends=True)
    cluster.known_hosts.write_text("".join(line for line in lines if f"[{unknown.address}]" not in line))


def unfit_nodes(fleet: Fleet, stack: ExitStack) -> None:
    venv, directory = fleet.playbooks.venv, fleet.playbooks.directory
    fleet.add("no-python", python_env_python="/no/python3")
    # Made already, so that pip is at work at once; of other pins, so that it is.
    ready_made = fleet.place("no-index") / "venv"
    shutil.copytree(venv, ready_made, symlinks=True, copy_function=os.link)
    (ready_made / ".llm-benchmark").unlink()
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    (directory / "other.txt").write_text("no-such-package==1.0\n")
    fleet.add(
        "no-index",
        python_env_dir=str(ready_made),
        python_env_requirements=str(directory / "other.txt"),
        node_environment=unreachable,
    )
    small = stack.enter_context(small_disk(fleet.place("env-full"), "1m"))
    fleet.add("env-full", python_env_dir=str(small / "venv"), python_env_min_free_gb=0)
    small = stack.enter_context(small_disk(fleet.place("tmp-full"), "64k"))
    (small / "filler").write_bytes(bytes(64 * 1024))
    fleet.add(
        "tmp-full",
        ansible_remote_tmp=str(small),
        python_env_dir=str(directory / "never"),
        python_env_min_free_gb=0,
    )
    small = stack.enter_context(small_disk(fleet.place("home-full"), "64k"))
    (small / "filler").write_bytes(bytes(64 * 1024))
    fleet.add_own("home-full", f"SetEnv SHLVL=2 HOME={small}\n", benchmark_work_dir="~/.local/share/llm-benchmark/runs")
    small = stack.enter_context(small_disk(fleet.place("results-full"), "300k"))
    fleet.add("results-full", benchmark_work_dir=str(small / "runs"))
    fleet.add("no-model", benchmark_model="/no/such/model")


def nodes_hit_while_measuring(fleet: Fleet) -> None:
    fleet.add("killed")
    fleet.add("hung", benchmark_timeout_s=40)
    for name in ("rebooted", *SURVIVE):
        fleet.add_own(name)


def lying_nodes(fleet: Fleet) -> None:
    programs = fleet.playbooks.directory / "programs"
    edits = {
        "truncated": 'head -c 700 "$f" > "$f.cut"; mv "$f.cut" "$f"',
        "other-schema": 'sed -i "s/\\"schema_version\\": 1/\\"schema_version\\": 99/" "$f"',
        "too-large": 'truncate -s 17M "$f"',
        "other-run": 'sed -i "s/\\"run_id\\": \\"[^\\"]*/\\"run_id\\": \\"20200101T000000Z-deadbeef/" "$f"',
    }
    for name, command in edits.items():
        fleet.add_own(name, hostile.edit_result(programs / name, command))
    outside = fleet.playbooks.directory / "outside"
    outside.mkdir()
    escapes = hostile.OWN_ARCHIVE % (hostile.ESCAPES % {"outside": outside})
    fleet.add_own("escaping", hostile.program(programs / "escaping", "tar", escapes))
    fleet.add_own("bomb", hostile.program(programs / "bomb", "tar", hostile.OWN_ARCHIVE % hostile.BOMB))
    fleet.add_own("endless", hostile.program(programs / "endless", "tar", "#!/bin/sh\nexec yes\n"))
    own_words = f"#!/bin/sh\necho \"{{{{ lookup('pipe', 'touch {outside}/templated') }}}}\" >&2\nexit 1\n"
    fleet.add_own("templates", hostile.program(programs / "templates", "tar", own_words))
    fleet.add_own("ahead", hostile.wrong_clock(programs / "ahead", hours=3))


def hit(fleet: Fleet, over: threading.Event) -> None:
    """Wait until every node that is to be hit measures, and hit it."""
    pids: dict[str, int] = {}
    todo = {"killed", "hung", "rebooted", *SURVIVE}
    while todo - pids.keys():
        if over.wait(0.1):
            return
        pids |= {name: pid for name in todo - pids.keys() if (pid := fleet.module(name))}
    os.kill(pids["killed"], signal.SIGKILL)
    os.kill(pids["hung"], signal.SIGSTOP)
    for pid in children(fleet.own["cut"]):
        os.kill(pid, signal.SIGKILL)
    for pid in children(fleet.own["frozen"]):
        os.kill(pid, signal.SIGSTOP)
    fleet.own["rebooted"].stop()
    for pid in processes_of(fleet.place("rebooted")):
        os.kill(pid, signal.SIGKILL)
    over.wait(4)
    fleet.own["rebooted"].start(fleet.playbooks.cluster.key.with_suffix(".pub"))


def children(node: SshNode) -> list[int]:
    """Return the processes of the node's SSH sessions."""
    assert node.process is not None
    told = subprocess.run(["pgrep", "-P", str(node.process.pid)], capture_output=True, text=True, check=True)
    return [int(pid) for pid in told.stdout.split()]


@dataclass
class Ended:
    """The run, and how long it took from the start of the playbook."""

    fleet: Fleet
    done: Done
    took_s: float


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, light_venv: Path, cluster: Any, tmp_path_factory: Any) -> Iterator[Ended]:
    """Run the playbook once on all of these nodes."""
    if os.geteuid() != 0:
        pytest.skip("file systems of a few kilobytes take root to mount")
    directory = tmp_path_factory.mktemp("fleet")
    playbooks = Playbooks(cluster, directory, light_venv, tmp_path_factory.mktemp("cp"))
    (directory / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (directory / "model" / name).write_text("{}")
    profile = {**yaml.safe_load((DATA / "fast.yaml").read_text()), "samples": SAMPLES}
    (directory / "profile.yaml").write_text(yaml.safe_dump(profile))
    playbooks.variables = {"benchmark_profile": str(directory / "profile.yaml"), "benchmark_timeout_s": TIMEOUT_S}
    fleet, over = Fleet(playbooks), threading.Event()
    try:
        with ExitStack() as stack:
            for name in HEALTHY:
                fleet.add(name)
            unreachable_nodes(fleet, stack)
            unfit_nodes(fleet, stack)
            nodes_hit_while_measuring(fleet)
            lying_nodes(fleet)
            # add() trusts everybody's key: these two are not to be.
            spoil_known_hosts(fleet)
            hitter = threading.Thread(target=hit, args=(fleet, over))
            hitter.start()
            began, umask = time.monotonic(), os.umask(0)  # the laxest user there is
            try:
                done = playbooks.run("benchmark", inventory=playbooks.inventory(fleet.hosts))
            finally:
                took_s = time.monotonic() - began
                os.umask(umask)
                over.set()
                hitter.join()
            (directory / "output.txt").write_text(done.output)
            assert_nothing_runs(directory)
            yield Ended(fleet, done, took_s)
    finally:
        for name, node in fleet.own.items():
            node.stop()
            del cluster.nodes[name]
        cluster.trust()


# What became of each node, and what is said of it: the stage, and the reason in part.
EXPECTED = {
    "refused": ("failed", "preflight: Not reachable: Nothing answers SSH at"),
    "silent": ("failed", "does not answer: is the node up"),
    "changed-key": ("failed", "preflight: Not reachable: The SSH host key of 127"),
    "unknown-key": ("failed", "is not known: connect once with ssh and compare the fingerprint"),
    "no-login": ("failed", "preflight: Not reachable: SSH login to"),
    "no-python": ("failed", "preflight: There is no Python: /no/python3 does not start"),
    "no-index": ("failed", "python_env: The package index"),
    "env-full": ("failed", "python_env: The disk is full: make room, or set python_env_dir"),
    "tmp-full": ("failed", "python_env: No space left on device: Ansible's temporary directory"),
    "home-full": ("failed", "benchmark: No space left on device: ~/.local/share/llm-benchmark/runs/"),
    "results-full": ("failed", "Make room, or set benchmark_work_dir to a larger disk"),
    "no-model": ("failed", "hf_cache: The model directory /no/such/model does not exist"),
    "killed": ("interrupted", "benchmark: The benchmark was killed (signal 9): perhaps the node ran out of memory"),
    "hung": ("interrupted", "benchmark: The benchmark hung: it was stopped after benchmark_timeout_s = 40 s"),
    "rebooted": ("interrupted", "benchmark: The benchmark's process is gone without an exit code"),
    "truncated": ("refused", "not JSON; the file is truncated or damaged"),
    "other-schema": ("refused", "schema_version 99 is not one this program knows"),
    "too-large": ("refused", "larger than 16 MiB; refused"),
    "other-run": ("refused", "it belongs to the run 20200101T000000Z-deadbeef"),
    "escaping": ("missing", "No result came back"),
    "bomb": ("failed", "benchmark: fetched.tar.gz: more than 2048 MiB"),
    "endless": ("failed", "benchmark: The node sends without end"),
    "templates": ("failed", "{{ lookup('pipe', 'touch "),
}
WHOLE = (*HEALTHY, *SURVIVE, "ahead")


@pytest.mark.timeout(900)
def test_every_fault_is_named_and_fails_its_node_alone(ended: Ended) -> None:
    done = ended.done
    assert done.code == 2, done.output
    assert ended.fleet.hosts.keys() == {*EXPECTED, *WHOLE}
    wrong = []
    for name, (status, said) in EXPECTED.items():
        row = done.row(name)
        if (row["status"], row["counted"]) != (status, False) or said not in row["reason"]:
            wrong.append((name, row["status"], row["reason"]))
        if done.recap(name)["failed"] != 1:
            wrong.append((name, "its task did not fail", str(done.recap(name))))
    assert not wrong, done.output[-20000:]
    assert "Traceback" not in done.output
    assert f"{len(WHOLE)} of {len(EXPECTED) + len(WHOLE)} counted" in done.summary
    # Several of them measured, and what they had measured is kept.
    assert all(done.row(name)["metrics"]["queries"]["completed"] for name in ("killed", "hung", "rebooted"))


def test_it_ends_within_the_time_limit_and_a_minute(ended: Ended) -> None:
    assert ended.took_s < TIMEOUT_S + 60


def test_the_others_results_are_whole(ended: Ended) -> None:
    for name in WHOLE:
        row = ended.done.row(name)
        assert (row["status"], row["counted"]) == ("complete", True), row
        assert row["metrics"]["queries"]["completed"] == SAMPLES
        assert ended.done.recap(name)["failed"] == 0
    for name in SURVIVE:
        assert f"{name}: SSH connection lost, looking for it again" in ended.done.output


def test_a_clock_that_is_far_off_is_named_and_does_not_count(ended: Ended) -> None:
    (far,) = [one for one in ended.done.cluster["drift"] if one["fact"] == "clock_offset_s"]
    (value,) = [value for value, nodes in far["values"].items() if nodes == ["ahead"]]
    assert float(value) == pytest.approx(3 * 3600, abs=60)
    # Corrected by its offset it measured with the others, and began with them.
    assert ended.done.cluster["overlap"]["together_s"] > 0


def test_what_comes_from_a_node_stays_in_its_place(ended: Ended) -> None:
    outside = ended.fleet.playbooks.directory / "outside"
    assert not list(outside.iterdir()), "nothing was run or written there"
    run_dir = ended.done.run_dir
    assert not [path for path in run_dir.parent.rglob("*") if "evil" in path.name]
    assert [path for path in run_dir.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())] == []
    assert not list(run_dir.glob("nodes/*/fetched.tar.gz")), "no archive is left"


def test_nobody_else_may_change_what_a_run_leaves(ended: Ended) -> None:
    places = [ended.done.run_dir, *(ended.fleet.playbooks.directory / "nodes").glob("*/runs")]
    found = [path for place in places for path in (place, *place.rglob("*"))]
    assert len(found) > len(ended.fleet.hosts)
    assert [path for path in found if path.lstat().st_mode & 0o002] == []
