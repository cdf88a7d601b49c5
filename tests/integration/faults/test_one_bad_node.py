"""One run of many nodes, nearly each with a fault of its own: the others' results stay whole, and each is named."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import DATA, Done, Playbooks, make_model_directory
from tests.integration.faults.fleet import Fleet
from tests.integration.faults.injected import (
    SURVIVE,
    hit,
    lying_nodes,
    nodes_hit_while_measuring,
    spoil_known_hosts,
    unfit_nodes,
    unreachable_nodes,
)
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.faults.no_answer import Unanswered, start_unanswered

# Long enough for every fault to come in mid-run.
SAMPLES = 300
TIMEOUT_S = 240
HEALTHY = ("fine1", "fine2")


@dataclass
class Ended:
    """The run, and how long it took from the start of the playbook."""

    fleet: Fleet
    done: Done
    took_s: float


@pytest.fixture(scope="module")
def unanswered(light_venv: Path, cluster: Any, tmp_path_factory: Any) -> Iterator[Unanswered]:
    """Start a run that waits a minute for answers, so that it does so while the other one is on."""
    directory = tmp_path_factory.mktemp("unanswered")
    make_model_directory(directory / "model")
    started = start_unanswered(Playbooks(cluster, directory, light_venv, tmp_path_factory.mktemp("cp")))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def ended(unanswered: Unanswered, light_venv: Path, cluster: Any, tmp_path_factory: Any) -> Iterator[Ended]:
    """Run the playbook once on all of these nodes."""
    if os.geteuid() != 0:
        pytest.skip("file systems of a few kilobytes take root to mount")
    directory = tmp_path_factory.mktemp("fleet")
    playbooks = Playbooks(cluster, directory, light_venv, tmp_path_factory.mktemp("cp"))
    make_model_directory(directory / "model")
    profile = {**yaml.safe_load((DATA / "fast.yaml").read_text()), "samples": SAMPLES}
    (directory / "profile.yaml").write_text(yaml.safe_dump(profile))
    playbooks.variables = {"benchmark_profile": str(directory / "profile.yaml"), "benchmark_timeout_s": TIMEOUT_S}
    fleet, over = Fleet(playbooks, first_address=40), threading.Event()
    try:
        with ExitStack() as stack:
            for name in HEALTHY:
                fleet.add(name)
            unreachable_nodes(fleet, stack)
            unfit_nodes(fleet, stack)
            nodes_hit_while_measuring(fleet, stack)
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
        fleet.close()


# What became of each node, and what is said of it: the stage, and the reason in part.
EXPECTED = {
    "refused": ("failed", "preflight: Not reachable: Nothing answers SSH at"),
    "silent": ("failed", "does not answer: is the node up"),
    "no-room": ("failed", "does not answer: is the node up"),
    "changed-key": ("failed", "preflight: Not reachable: The SSH host key of 127"),
    "unknown-key": ("failed", "is not known: connect once with ssh and compare the fingerprint"),
    "no-login": ("failed", "preflight: Not reachable: SSH login to"),
    "no-python": ("failed", "preflight: There is no Python: /no/python3 does not start"),
    "no-index": ("failed", "python_env: The package index"),
    "env-full": ("failed", "python_env: The disk is full: make room, or set python_env_dir"),
    "tmp-full": ("failed", "python_env: No space left on device: Ansible's temporary directory"),
    "home-full": ("failed", "benchmark: No space left on device: ~/.local/share/llm-benchmark/runs/"),
    "results-full": ("failed", "Make room, or set benchmark_work_dir to a larger disk"),
    "sliver": ("failed", "benchmark: No space left on device: "),
    "no-model": ("failed", "preflight: The model directory /no/such/model does not exist"),
    "killed": ("interrupted", "benchmark: The benchmark was killed (SIGKILL), and not by the kernel's OOM killer"),
    "oom": (
        "interrupted",
        "benchmark: The benchmark was killed by the kernel's OOM killer, because memory ran out: its",
    ),
    "hung": ("interrupted", "benchmark: The benchmark hung: it was stopped after benchmark_timeout_s = 40 s"),
    "rebooted": ("interrupted", "benchmark: The node was restarted while the benchmark ran"),
    "tmp-lost": ("failed", "was it removed, or lost in a restart (as /tmp is)? Nothing could be fetched"),
    "truncated": ("refused", "not JSON; the file is truncated or damaged"),
    "other-schema": ("refused", "schema_version 99 is unknown to this program"),
    "too-large": ("refused", "larger than 16 MiB; refused"),
    "other-run": ("refused", "it belongs to the run 20200101T000000Z-deadbeef"),
    "escaping": ("failed", "benchmark: fetched.tar.gz: lacks benchmark.log, mlperf_datacenter_escaping_"),
    "bomb": ("failed", "benchmark: fetched.tar.gz: more than 2048 MiB"),
    "endless": ("failed", "benchmark: The node sends too much"),
    "templates": ("failed", "{{ lookup('pipe', 'touch "),
}
WHOLE = (*HEALTHY, *SURVIVE, "ahead")


@pytest.mark.timeout(900)
def test_every_fault_is_named_and_fails_its_node_alone(ended: Ended) -> None:
    done = ended.done
    assert done.code == 2, done.output
    assert ended.fleet.hosts.keys() | ended.fleet.left_out.keys() == {*EXPECTED, *WHOLE}
    wrong = []
    for name in EXPECTED.keys() & ended.fleet.hosts.keys():
        status, said = EXPECTED[name]
        row = done.row(name)
        if (row["status"], row["counted"]) != (status, False) or said not in row["reason"]:
            wrong.append((name, row["status"], row["reason"]))
        if done.recap(name)["failed"] != 1:
            wrong.append((name, "its task did not fail", str(done.recap(name))))
    assert not wrong, done.output[-20000:]
    assert "Traceback" not in done.output
    assert f"{len(WHOLE)} of {len(ended.fleet.hosts)} counted" in done.summary
    # Several of them measured, and what they had measured is kept.
    measured = {"killed", "oom", "hung", "rebooted"} & ended.fleet.hosts.keys()
    assert all(done.row(name)["metrics"]["queries"]["completed"] for name in measured)


def test_it_ends_within_the_time_limit_and_a_minute(ended: Ended) -> None:
    assert ended.took_s < TIMEOUT_S + 60


def test_the_others_results_are_whole(ended: Ended) -> None:
    for name in WHOLE:
        row = ended.done.row(name)
        assert (row["status"], row["counted"]) == ("complete", True), row
        assert row["metrics"]["queries"]["completed"] == SAMPLES
        assert ended.done.recap(name)["failed"] == 0
    for name in SURVIVE:
        assert f"{name}: SSH connection lost, reconnecting" in ended.done.output


def test_out_of_memory_differs_from_killed_by_somebody(
    ended: Ended,
) -> None:
    if reason := ended.fleet.left_out.get("oom"):
        pytest.skip(reason)
    assert "its cgroup may take 160 MiB. Free memory on the node" in ended.done.row("oom")["reason"]
    assert (ended.done.run_dir / "nodes" / "oom" / "oom_kills").is_file(), "what it is known from"


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


def test_a_node_that_never_answers_is_left_after_a_minute(ended: Ended, unanswered: Unanswered) -> None:
    done = unanswered.end()
    assert done.code == 2, done.output
    for name in ("profile-hangs", "python-hangs"):
        row = done.row(name)
        assert row["status"] == "failed"
    reason = done.row("profile-hangs")["reason"]
    assert "preflight: Not reachable: 127" in reason
    assert "accepted a command but gave no answer within 60 s: is it overloaded" in reason
    reason = done.row("python-hangs")["reason"]
    assert f"preflight: The node answers, but {unanswered.fleet.place('python-hangs')}/python3 hangs" in reason
    assert done.row("fine")["status"] == "complete"
    assert done.recap("fine")["failed"] == 0
    assert unanswered.took_s < 120 + 240, "benchmark_timeout_s and a minute, on a busy machine: not for ever"
    # Where the command began it is ended on the node itself.
    assert_nothing_runs(unanswered.fleet.place("python-hangs"))
