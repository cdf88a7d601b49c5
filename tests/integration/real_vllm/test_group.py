"""Two nodes with networks of their own as one copy of a model with real vLLM: measured, ended, and its deaths."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.bridged_nodes import bridged_cluster
from tests.integration.conftest import Done, Playbooks
from tests.integration.faults.left_over import assert_nothing_runs, processes_of
from tests.integration.isolated_nodes import why_not
from tests.integration.real_vllm.conftest import make_model, result, run, two_nodes

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(why_not() is not None, reason=f"no namespaces here: {why_not()}"),
]
NODES = ("jw6", "jw7")


@pytest.fixture
def group(installed: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playbooks]:
    """The playbooks on two nodes that reach each other by their own networks alone, with a tiny model."""
    make_model(tmp_path / "model")
    with bridged_cluster(tmp_path_factory.mktemp("bridged"), NODES) as cluster, two_nodes(cluster, tmp_path) as made:
        made.variables["benchmark_group"] = "a"
        yield made


def options(group: Playbooks, **sizes: int) -> None:
    """Have the model spread in that way; a third of the memory for each of two processes on one machine."""
    known = group.variables["benchmark_engine_options"]
    group.variables["benchmark_engine_options"] = {**known, "gpu_memory_utilization": 0.3, **sizes}


def profile(group: Playbooks, samples: int, tokens: int) -> str:
    path = group.directory / "group.yaml"
    content = {
        "name": "group",
        "version": 1,
        "kind": "self-test",
        "scenario": "closed_loop",
        "engine": "vllm",
        "dataset": "curated",
        "samples": samples,
        "warmup": 1,
        "generation": {"max_new_tokens": tokens, "min_new_tokens": tokens},
        "limits": [{"metric": "queries.failed", "at_most": 0}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_two_nodes_serve_one_copy(group: Playbooks) -> None:
    # Not pipeline parallel: its build for the CPU loses the first query in that way, see docs/vllm.md.
    options(group, tensor_parallel_size=2)
    group.variables["benchmark_profile"] = profile(group, samples=6, tokens=8)
    done = run(group, "benchmark")
    assert done.code == 0, done.output
    (row,) = done.cluster["nodes"]
    assert (row["node"], row["members"], row["counted"]) == ("a", list(NODES), True), row["reason"]
    assert (row["metrics"]["queries"]["completed"], row["metrics"]["output_tokens"]) == (6, 48)
    head, other = (result(done, name) for name in NODES)
    assert head["engine"]["replicas"] == 2
    assert "--headless" in other["engine"]["details"]["start"]
    assert other["served"][0]["telemetry"]["ticks"] > 0
    assert "world_size=2" in (done.run_dir / "nodes" / NODES[1] / "endpoint.log").read_text()
    assert_nothing_runs(group.directory)


@pytest.mark.parametrize("killed", NODES, ids=["head", "other"])
def test_a_node_that_dies_ends_its_group(killed: str, group: Playbooks) -> None:
    options(group, tensor_parallel_size=2)
    group.variables["benchmark_profile"] = profile(group, samples=2000, tokens=64)
    process = group.start(group.command("benchmark"))
    runs = group.directory / "nodes" / NODES[0] / "runs"
    measures = f"*/{NODES[0]}/samples.jsonl"
    while not [path for path in runs.glob(measures) if path.stat().st_size]:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    rank = f"--node-rank {NODES.index(killed)} "
    (pid,) = (
        pid
        for pid, words in processes_of(group.directory).items()
        if rank in words and words.split()[1].endswith("/bin/vllm")
    )
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate()
    done = Done(process.returncode, output, (group.results / "latest").resolve())
    (row,) = done.cluster["nodes"]
    assert not row["counted"], done.output
    (other,) = (name for name in NODES if name != killed)
    assert row["reason"].count(f"{killed}: ") == 1, row["reason"]
    assert f"{other}: " not in row["reason"]
    failure = json.loads((done.run_dir / "nodes" / other / "failure.json").read_text())["reason"]
    assert failure.startswith(
        f"{killed}, {'the head' if killed == NODES[0] else 'another node'} of its group a, failed:"
    )
    assert_nothing_runs(group.directory)
