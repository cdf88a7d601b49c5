"""What is wrong with the nodes of the fleet, and what comes over them while they measure."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmark.files import write_atomic
from tests.integration.conftest import unmarked
from tests.integration.faults import full, hostile
from tests.integration.faults.fleet import Fleet, children, send, small_disk
from tests.integration.ssh_nodes import PORT, SESSION, keygen, loopback
from tests.memory_cgroup import memory_cgroup

BACKLOG = 4
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# What is done to these while they measure, and that their results come nevertheless.
SURVIVE = ("cut", "frozen")


@contextmanager
def silent_port(address: str, port: int) -> Iterator[None]:
    """Accept connections and never say a word."""
    with socket.create_server((address, port)):
        yield


@contextmanager
def full_backlog(address: str, port: int) -> Iterator[None]:
    """Neither accept connections nor refuse them: the kernel answers no more once as many wait as are let."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(BACKLOG):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


def unreachable_nodes(fleet: Fleet, stack: ExitStack) -> None:
    directory = fleet.playbooks.directory
    fleet.add("refused", ansible_host=loopback(99))
    stack.enter_context(silent_port(loopback(98), PORT))
    fleet.add("silent", ansible_host=loopback(98))
    stack.enter_context(full_backlog(loopback(97), PORT))
    fleet.add("no-room", ansible_host=loopback(97))
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
    # The run of the nodes that never answer reads it meanwhile.
    write_atomic(cluster.known_hosts, "".join(line for line in lines if f"[{unknown.address}]" not in line))


def unfit_nodes(fleet: Fleet, stack: ExitStack) -> None:
    venv, directory = fleet.playbooks.venv, fleet.playbooks.directory
    fleet.add("no-python", python_env_python="/no/python3")
    # Made already, so that pip is at work at once; of other pins, so that it is.
    ready_made = unmarked(venv, fleet.place("no-index") / "venv")
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
    fleet.add_own("home-full", f"{SESSION} HOME={small}\n", benchmark_work_dir="~/.local/share/llm-benchmark/runs")
    small = stack.enter_context(small_disk(fleet.place("results-full"), "300k"))
    fleet.add("results-full", benchmark_work_dir=str(small / "runs"))
    # Not even for the exit code, once the order is there.
    small = stack.enter_context(small_disk(fleet.place("sliver"), "64k"))
    (small / "filler").write_bytes(bytes(40 * 1024))
    fleet.add("sliver", benchmark_work_dir=str(small / "runs"))
    fleet.add("no-model", benchmark_model="/no/such/model")


def nodes_hit_while_measuring(fleet: Fleet, stack: ExitStack) -> None:
    fleet.add("killed")
    fleet.add("hung", benchmark_timeout_s=40)
    boots = fleet.playbooks.directory / "boots"
    boots.mkdir()
    (boots / "boot_id").write_text("11111111-2222-4333-8444-555555555555\n")
    fleet.add_own("rebooted", before=f"mount --bind {boots}/boot_id {BOOT_ID}")
    fleet.add_own("tmp-lost", benchmark_work_dir=str(fleet.place("tmp-lost") / "tmp"))
    for name in SURVIVE:
        fleet.add_own(name)
    try:
        procs = stack.enter_context(memory_cgroup(f"llm-benchmark-faults-{os.getpid()}", 160))
    except OSError as error:
        fleet.left_out["oom"] = f"no memory cgroup can be made here: {error}"
        return
    node = fleet.add_own("oom", full.leak(fleet.playbooks.directory / "programs" / "oom", fleet.place("oom")))
    assert node.process is not None
    procs.write_text(str(node.process.pid))


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
    todo = {"killed", "hung", "rebooted", "tmp-lost", *SURVIVE, *({"oom"} & fleet.hosts.keys())}
    while todo - pids.keys():
        if over.wait(0.1):
            return
        pids |= {name: pid for name in todo - pids.keys() if (pid := fleet.module(name))}
    send(pids["killed"], signal.SIGKILL)
    send(pids["hung"], signal.SIGSTOP)
    if "oom" in pids:
        (fleet.place("oom") / full.LEAK).touch()
    for pid in children(fleet.own["cut"]):
        send(pid, signal.SIGKILL)
    for pid in children(fleet.own["frozen"]):
        send(pid, signal.SIGSTOP)
    for name in ("rebooted", "tmp-lost"):
        fleet.power_off(name)
    over.wait(4)
    # Another boot, and what it clears.
    (fleet.playbooks.directory / "boots" / "boot_id").write_text("66666666-7777-4888-9999-aaaaaaaaaaaa\n")
    shutil.rmtree(fleet.place("tmp-lost") / "tmp")
    for name in ("rebooted", "tmp-lost"):
        fleet.power_on(name)
