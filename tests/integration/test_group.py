"""Two nodes as one copy of a model over real sshd: measured at the head, torn down together, and ended together."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import vllm_group
from tests.integration.conftest import DATA, Done, Playbooks, make_model_directory
from tests.integration.faults.left_over import assert_nothing_runs, processes_of
from tests.integration.ssh_nodes import Cluster, loopback, worker_port
from tests.integration.test_benchmark import wait_until

PORT = 8045
# The directory of the double's environments: what runs there is found by it.
ENGINES = "engines"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all nodes have our code, as those with one home have: to compile it takes each of them two seconds."""
    return tmp_path_factory.mktemp("home") / "code"


@pytest.fixture
def group(cluster: Cluster, tmp_path: Path, code: Path) -> Iterator[Playbooks]:
    """The playbooks on two nodes of one group, with the tests' own environment and a double of vLLM's launcher."""
    make_model_directory(tmp_path / "model")
    for name in ("jw2", "jw3"):
        vllm_group.make(tmp_path / ENGINES / name)
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    made = Playbooks(cluster, tmp_path, Path(sys.prefix), control_path)
    made.variables = {
        "benchmark_profile": profile(tmp_path),
        "python_env_manage": False,
        "python_env_code_dir": str(code),
        "benchmark_engine": "vllm",
        "benchmark_engine_options": {"pipeline_parallel_size": 2},
        "benchmark_group": "a",
        "benchmark_serve_port": PORT,
        "vllm_manage": False,
        "vllm_dir": f"{tmp_path}/{ENGINES}/{{{{ inventory_hostname }}}}",
    }
    yield made
    shutil.rmtree(control_path, ignore_errors=True)


def profile(directory: Path, **changes: Any) -> str:
    """Write the fast profile with those changes, for a server whose speed decides nothing."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    limits = [limit for limit in content["limits"] if limit["metric"] != "qps"]
    path = directory / "group.yaml"
    path.write_text(yaml.safe_dump({**content, "engine": "vllm", "engine_options": {}, "limits": limits, **changes}))
    return str(path)


def result(done: Done, node: str) -> dict[str, Any]:
    (path,) = done.run_dir.glob(f"nodes/{node}/mlperf_datacenter_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_two_nodes_are_one_row(group: Playbooks) -> None:
    """Also where the other's part of the engine ends with the head's, which takes a while."""
    group.variables["benchmark_environment"] = {vllm_group.LINGERS_S: "3"}
    done = group.run("benchmark", "-e", "benchmark_repeats=2")
    assert done.code == 0, done.output
    assert_nothing_runs(group.directory)
    (row,) = done.cluster["nodes"]
    assert (row["node"], row["members"], row["counted"], row["verdict"]["valid"]) == ("a", ["jw2", "jw3"], True, True)
    assert row["metrics"]["queries"]["completed"] == 8
    head, other = result(done, "jw2"), result(done, "jw3")
    assert head["engine"]["replicas"] == 2
    details = head["engine"]["details"]
    assert (details["group"], details["nodes"]) == ("a", ["jw2", "jw3"])
    address = loopback(2)
    both = f"--distributed-executor-backend mp --nnodes 2 --node-rank {{}} --master-addr {address} --master-port {PORT}"
    assert f" --tensor-parallel-size 1 --pipeline-parallel-size 2 {both.format(0)} " in details["start"]
    assert f"{both.format(1)} --headless" in other["engine"]["details"]["start"]
    assert " --host " not in other["engine"]["details"]["start"]
    # The other begins once, also where its head measures twice.
    orders = [json.loads((done.run_dir / "nodes" / name / "order.json").read_text()) for name in ("jw2", "jw3")]
    assert [order["measurements"] for order in orders] == [2, 1]
    # Each watched in the head's windows, which one clock tells here.
    windows = [head["window"], *(repeat["window"] for repeat in head["repeats"])]
    for served, window in zip(other["served"], windows, strict=True):
        assert abs(served["window"]["started_unix_ns"] - window["started_unix_ns"]) < 50_000_000
    assert other["metrics"] is None
    log = (done.run_dir / "nodes" / "jw3" / "endpoint.log").read_text()
    assert f"{loopback(3)} lo" in log
    assert "a: jw2 (head), jw3, one copy of the model" in done.summary
    assert "a <small>(jw2 (head), jw3)</small>" in (done.run_dir / "report.html").read_text()
    (line,) = csv.DictReader((done.run_dir / "nodes.csv").open())
    assert (line["node"], line["members"], line["valid"]) == ("a", "jw2 jw3", "true")
    assert done.recap("jw3")["failed"] == 0


def test_of_several_groups_the_others_go_on(group: Playbooks) -> None:
    """One whose head dies, one of which another node does, one whose head nobody reaches; and one is measured.

    That one's nodes meet by IPv6, where there is any. Then those that died are measured again, in the same run.
    """
    group.variables["benchmark_profile"] = profile(group.directory, samples=100)
    names = {"a": ("jw2", "jw3"), "b": ("jw4", "jw5"), "c": ("jw6", "jw7"), "d": ("jw8", "jw9")}
    added = [name for name in sum(names.values(), ()) if name not in ("jw2", "jw3", "jw8")]
    for name in added:
        group.cluster.add(name, loopback(int(name[2:])))
        vllm_group.make(group.directory / ENGINES / name)
    hosts: dict[str, Any] = {
        node: {"ansible_host": loopback(int(node[2:])), "benchmark_group": name}
        for name, nodes in names.items()
        for node in nodes
    }
    if Path("/proc/net/if_inet6").exists():
        for node, base in (("jw6", 8300), ("jw7", 8400)):
            hosts[node] |= {"benchmark_serve_address": "::1", "benchmark_serve_port": worker_port(base)}
    try:
        slowly(hosts, ("jw2", "jw4"), 50)
        process = group.start(group.command("benchmark", inventory=group.inventory(hosts)))
        for head, rank in (("jw2", 0), ("jw4", 1)):
            wait_until(f"{head} measures", functools.partial(measured_at, group, head), process)
            kill(group, head, rank)
        output, _ = process.communicate()
        done = Done(process.returncode, output, (group.results / "latest").resolve())
        assert_who_died_is_named_once(done)
        assert_nothing_runs(group.directory)
        slowly(hosts, ("jw2", "jw4"), 0)
        words = ["-e", f"benchmark_resume={done.run_dir.name}", "--limit", "jw2,jw3,jw4,jw5,jw6"]
        again = group.run("benchmark", *words, inventory=group.inventory(hosts))
    finally:
        for name in added:
            group.cluster.nodes.pop(name).stop()
        group.cluster.trust()
    assert again.code == 0, again.output
    assert "4 nodes to measure, 1 node complete and left alone" in again.output
    assert "Without a complete result, and not in this play (--limit): jw8, jw9." in again.output
    assert [(row["node"], row["counted"], row["attempt"]) for row in again.cluster["nodes"][:3]] == [
        ("a", True, 2),
        ("b", True, 2),
        ("c", True, 1),
    ]
    assert_nothing_runs(group.directory)


def slowly(hosts: dict[str, Any], heads: tuple[str, ...], token_ms: int) -> None:
    """Have these heads take so long for a token."""
    for head in heads:
        hosts[head]["benchmark_environment"] = {vllm_group.TOKEN_MS: str(token_ms)}


def measured_at(group: Playbooks, head: str) -> list[Path]:
    runs = group.directory / "nodes" / head / "runs"
    return [path for path in runs.glob(f"*/{head}/samples.jsonl") if path.stat().st_size]


def kill(group: Playbooks, head: str, rank: int) -> None:
    """Kill the part of that rank of the group with that head."""
    wanted = f"--node-rank {rank} --master-addr {loopback(int(head[2:]))} "
    (pid,) = (
        pid
        for pid, command in processes_of(group.directory).items()
        if "tests.vllm_group" in command and wanted in command
    )
    os.kill(pid, signal.SIGKILL)


def assert_who_died_is_named_once(done: Done) -> None:
    assert done.code != 0
    rows = {row["node"]: row for row in done.cluster["nodes"]}
    assert {name: row["counted"] for name, row in rows.items()} == {"a": False, "b": False, "c": True, "d": False}
    for name, killed, other, which in (("a", "jw2", "jw3", "the head"), ("b", "jw5", "jw4", "another node")):
        assert rows[name]["reason"].count(f"{killed}: ") == 1, rows[name]["reason"]
        assert f"{other}: " not in rows[name]["reason"]
        assert "vLLM was ended by signal 9" in rows[name]["reason"]
        failure = json.loads((done.run_dir / "nodes" / other / "failure.json").read_text())["reason"]
        assert failure.startswith(f"{killed}, {which} of its group {name}, failed: ")
        assert "vLLM was ended by signal 9" in failure
        assert (done.recap(killed)["failed"], done.recap(other)["failed"]) == (1, 1)
    assert rows["d"]["reason"].count("jw8: ") == 1, rows["d"]["reason"]
    assert "Nothing answers SSH at" in rows["d"]["reason"]
    failure = json.loads((done.run_dir / "nodes" / "jw9" / "failure.json").read_text())["reason"]
    assert failure == "Nothing was measured: jw8 of its group, d, failed before."
    assert "Measure a, b, d again, in this run: " in done.output


def test_nodes_that_are_not_alike_load_nothing(group: Playbooks) -> None:
    newer = vllm_group.make(group.directory / ENGINES / "newer", "0.33.1")
    hosts = {"jw2": group.cluster.host("jw2"), "jw3": {**group.cluster.host("jw3"), "vllm_dir": str(newer)}}
    done = group.run("benchmark", inventory=group.inventory(hosts))
    assert done.code != 0
    (row,) = done.cluster["nodes"]
    wanted = "jw3: Its software differs from that of jw2, the head of its group a: vllm 0.33.1 here and 0.33.0 there."
    assert wanted in row["reason"]
    assert not list(done.run_dir.rglob("endpoint.log"))
    assert_nothing_runs(group.directory)


def test_a_part_of_a_group_is_looked_at_and_not_measured(group: Playbooks) -> None:
    done = group.run("benchmark", "--limit", "jw2")
    assert done.code != 0
    assert "--limit splits the group a: it names jw2 and leaves out jw3." in " ".join(done.output.split())
    assert not group.results.exists()
    looked_at = group.run("preflight", "--limit", "jw2")
    assert looked_at.code == 0, looked_at.output
    assert "jw2 is fit. Next: measure with all nodes of the group or the system" in looked_at.output
