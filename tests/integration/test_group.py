"""Two nodes as one copy of a model over real sshd: measured at the head, torn down together, and ended together."""

from __future__ import annotations

import csv
import json
import os
import re
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
from tests.integration.ssh_nodes import Cluster, loopback
from tests.integration.test_benchmark import wait_until

PORT = 8045
# The directory of the double's environments: what runs there is found by it.
ENGINES = "engines"


@pytest.fixture
def group(cluster: Cluster, tmp_path: Path) -> Iterator[Playbooks]:
    """The playbooks on two nodes of one group, with the tests' own environment and a double of vLLM's launcher."""
    make_model_directory(tmp_path / "model")
    for name in ("jw2", "jw3"):
        vllm_group.make(tmp_path / ENGINES / name)
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    made = Playbooks(cluster, tmp_path, Path(sys.prefix), control_path)
    made.variables = {
        "benchmark_profile": profile(tmp_path),
        "python_env_manage": False,
        "python_env_code_dir": f"{tmp_path}/nodes/{{{{ inventory_hostname }}}}/code",
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


@pytest.mark.parametrize(
    ("killed", "other", "which"), [("jw2", "jw3", "the head"), ("jw3", "jw2", "another node")], ids=["head", "other"]
)
def test_a_node_that_dies_ends_its_group(killed: str, other: str, which: str, group: Playbooks) -> None:
    group.variables |= {
        "benchmark_profile": profile(group.directory, samples=4000),
        "benchmark_environment": {vllm_group.TOKEN_MS: "50"},
    }
    process = group.start(group.command("benchmark"))
    runs = group.directory / "nodes" / "jw2" / "runs"
    wait_until("the head measures", lambda: [p for p in runs.glob("*/jw2/samples.jsonl") if p.stat().st_size], process)
    for pid, command in processes_of(group.directory).items():
        rank = "--node-rank 0" if killed == "jw2" else "--node-rank 1"
        if "tests.vllm_group" in command and rank in command:
            os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate()
    done = Done(process.returncode, output, (group.results / "latest").resolve())
    assert done.code != 0
    (row,) = done.cluster["nodes"]
    assert (row["node"], row["counted"]) == ("a", False)
    assert row["reason"].count(f"{killed}: ") == 1, row["reason"]
    assert f"{other}: " not in row["reason"]
    # Whoever asks the head may see that nothing answers before it is known how that ended.
    words = {"jw2": "No server can be reached any more|vLLM was ended by signal 9", "jw3": "vLLM was ended by signal 9"}
    assert re.search(words[killed], row["reason"])
    failure = json.loads((done.run_dir / "nodes" / other / "failure.json").read_text())["reason"]
    assert failure.startswith(f"{killed}, {which} of its group a, failed: ")
    assert re.search(words[killed], failure)
    assert_nothing_runs(group.directory)
    assert (done.recap("jw2")["failed"], done.recap("jw3")["failed"]) == (1, 1)


def test_nodes_that_are_not_alike_load_nothing(group: Playbooks) -> None:
    newer = vllm_group.make(group.directory / ENGINES / "newer", "0.33.1")
    hosts = {"jw2": group.cluster.host("jw2"), "jw3": {**group.cluster.host("jw3"), "vllm_dir": str(newer)}}
    done = group.run("benchmark", inventory=group.inventory(hosts))
    assert done.code != 0
    (row,) = done.cluster["nodes"]
    wanted = "jw3: Its software is not that of jw2, the head of its group a: vllm 0.33.1 here and 0.33.0 there."
    assert wanted in row["reason"]
    assert not list(done.run_dir.rglob("endpoint.log"))
    assert_nothing_runs(group.directory)


def test_a_part_of_a_group_is_refused(group: Playbooks) -> None:
    done = group.run("benchmark", "--limit", "jw2")
    assert done.code != 0
    assert "--limit splits the group a: it names jw2 and leaves out jw3." in " ".join(done.output.split())
    assert not group.results.exists()
