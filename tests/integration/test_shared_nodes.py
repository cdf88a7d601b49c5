"""Two people with accounts of their own on one node: whoever measures does so alone, and is named to the other."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import UNCOMPILED, Playbooks, make_model_directory, write_least_requirements
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.isolated_nodes import why_not
from tests.integration.ssh_nodes import Cluster, loopback
from tests.integration.test_benchmark import profile, wait_until

pytestmark = [pytest.mark.skipif(why_not() is not None, reason=str(why_not())), pytest.mark.timeout(560)]

# Nobody but the two sees what is claimed there.
ONE = ("--limit", "jw2")
OWN_TMP = "mount -t tmpfs -o mode=1777 none /tmp"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every account may read."""
    directory = Path(tempfile.mkdtemp(prefix="shared-nodes.", dir="/var/tmp"))  # a test's
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def accounts(place: Path) -> Iterator[tuple[str, str]]:
    """Two accounts without any rights."""
    names = (f"bm-{os.getpid()}-alice", f"bm-{os.getpid()}-bob")
    try:
        for name in names:
            add = ["useradd", "--create-home", "--base-dir", str(place), "--shell", "/bin/sh", "--password", "*", name]
            subprocess.run(add, check=True, capture_output=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def people(place: Path, accounts: tuple[str, str]) -> Iterator[tuple[Playbooks, Playbooks]]:
    """Both with the node jw2; they share an environment, and each has its own of all else."""
    (place / "cluster").mkdir()
    cluster = Cluster(place / "cluster")
    make_model_directory(place / "model")
    write_least_requirements(place / "requirements.txt")
    environments = place / "environments"
    environments.mkdir()
    environments.chmod(0o777)
    each: list[Playbooks] = []
    try:
        cluster.add("jw2", loopback(30), before=OWN_TMP)
        for name in accounts:
            variables: dict[str, Any] = {
                "ansible_user": name,
                "benchmark_model": str(place / "model"),
                "benchmark_shared_machine": False,
                "benchmark_work_dir": "~/runs",
                "hf_cache_dir": "~/huggingface",
                "python_env_python": "/usr/bin/python3",
                "python_env_requirements": str(place / "requirements.txt"),
                **UNCOMPILED,
            }
            directory = place / f"controller-of-{name}"
            directory.mkdir()
            control_path = Path(tempfile.mkdtemp(prefix="cp"))
            each.append(Playbooks(cluster, directory, environments / "venv", control_path, variables))
        made = each[0].run("provision", "--limit", "jw2")
        assert made.code == 0, made.output
        # Both may write there: what is refused below is refused for another reason.
        for path in environments.rglob("*"):
            if path.is_dir():
                path.chmod(0o777)
        yield each[0], each[1]
    finally:
        cluster.stop()
        for one in each:
            shutil.rmtree(one.control_path, ignore_errors=True)


def words(text: str) -> str:
    return " ".join(text.split())


def test_who_measures_is_alone_and_is_named_to_the_other(
    people: tuple[Playbooks, Playbooks], place: Path, accounts: tuple[str, str]
) -> None:
    alice, bob = people
    long = profile(alice.directory, samples=100_000)
    process = alice.start(alice.command("benchmark", *ONE, "-e", f"benchmark_profile={long}"))
    samples = place / accounts[0] / "runs"
    wait_until("alice measures", lambda: list(samples.glob("*/jw2/samples.jsonl")), process)
    (run,) = samples.glob("*/jw2")
    who = f"run {run.parent.name} of {pwd.getpwuid(os.geteuid()).pw_name} on "

    refused = bob.run("benchmark", *ONE, "-e", "benchmark_busy=fail")
    assert refused.code != 0
    reason = refused.row("jw2")["reason"]
    assert reason.startswith(f"benchmark: Not alone: {who}"), refused.output
    assert "has been measuring here since 20" in reason
    assert "(benchmark_busy is fail)" in reason
    assert not list(refused.run_dir.glob("nodes/jw2/mlperf_*")), "no Python was started"
    away = bob.run("provision", *ONE, "-e", "benchmark_busy=fail", "-e", f"python_env_dir={place}/environments/new")
    assert away.code != 0
    assert f"Nothing was changed. Not alone: {who}" in words(away.output)
    assert not (place / "environments" / "new").exists()

    waiting = bob.start(bob.command("benchmark", *ONE))
    assert waiting.stdout is not None
    output = ""
    while f"waiting: {who}" not in output:
        line = waiting.stdout.readline()
        assert line, output
        output += line
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    alices, _ = process.communicate(timeout=200)
    output += waiting.communicate(timeout=200)[0]
    assert waiting.returncode == 0, output
    result = json.loads(next((bob.results / "latest").glob("nodes/jw2/mlperf_*.json")).read_text())
    assert result["status"] == "complete"
    assert "PARTIAL" in alices
    for name in accounts:
        assert_nothing_runs(place / name)


def test_two_controllers_at_once_each_measure_on_both_nodes(people: tuple[Playbooks, Playbooks]) -> None:
    """Each could hold one node and wait for the other's: two nodes, with a processor of their own each."""
    cluster = people[0].cluster
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        pytest.skip("two processors are needed")
    for number, processor in enumerate(processors):
        cluster.add(f"own{number}", loopback(31 + number), before=f"taskset -pc {processor} $$ > /dev/null; {OWN_TMP}")
    hosts = {f"own{number}": cluster.host(f"own{number}") for number in range(2)}
    started = []
    for one in people:
        short = profile(one.directory, samples=40)
        words = ("-e", f"benchmark_profile={short}", "-e", "benchmark_sync_timeout_s=240")
        started.append(one.start(one.command("benchmark", *words, inventory=one.inventory(hosts))))
    ids = set()
    for one, process in zip(people, started, strict=True):
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
        cluster_result = json.loads((one.results / "latest" / "aggregated_datacenter_results.json").read_text())
        assert cluster_result["counted"] == 2, output
        ids.add(cluster_result["run_id"])
    assert len(ids) == 2


def test_one_machine_that_is_listed_twice_is_refused(people: tuple[Playbooks, Playbooks]) -> None:
    one = replace(people[0], variables={**people[0].variables, "python_env_min_free_gb": 0})
    address = one.cluster.nodes["jw2"].address
    hosts = {name: {"ansible_host": address} for name in ("jw2", "again")}
    done = one.run("benchmark", inventory=one.inventory(hosts))
    assert done.code != 0
    for node in hosts:
        reason = done.row(node)["reason"]
        assert reason.startswith("preflight: again and jw2 of the inventory are one machine ("), done.output
        assert "List it once" in reason
    assert not list(done.run_dir.glob("nodes/*/samples.jsonl"))
