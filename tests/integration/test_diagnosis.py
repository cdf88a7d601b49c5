"""Faults that are put into real nodes are found by name: a CPU quota, an added delay, another package version."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.records import Finding
from benchmark.verdict import label
from tests.integration.conftest import Playbooks, make_model_directory
from tests.integration.cpu_quota import CpuQuota
from tests.integration.ssh_nodes import Cluster, loopback
from tests.integration.test_drift import with_another_version

HEALTHY = ("gpu1", "gpu2", "gpu3", "gpu4")
STARVED, DELAYED, OTHER = "starved", "delayed", "other"
QUERIES = 12
PROFILE = f"""\
{{name: slow-waits, version: 1, kind: self-test, scenario: closed_loop, engine: simulated, dataset: curated,
 engine_options: {{ttft_ms: 100, tpot_ms: 20, work_ms: 12}}, samples: {QUERIES}, warmup: 1,
 generation: {{max_new_tokens: 8, min_new_tokens: 8}}, limits: [{{metric: queries.failed, at_most: 0}}]}}
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    """Seven nodes, two of which have a delay in their environment, where no setting shows it."""
    cluster = Cluster(tmp_path / "cluster")
    cluster.directory.mkdir()
    try:
        for number, name in enumerate((*HEALTHY, STARVED)):
            cluster.add(name, loopback(20 + number))
        cluster.add(DELAYED, loopback(30), "SetEnv SIMULATED_SLOWDOWN=1.5\n")
        cluster.add(OTHER, loopback(31), "SetEnv SIMULATED_SLOWDOWN=1.3\n")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def quota() -> Iterator[CpuQuota]:
    made = CpuQuota(f"llm-benchmark-{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


def starve_while_measuring(quota: CpuQuota, runs: Path, over: threading.Event) -> None:
    """Hold the node back from when it is ready until its last sample: not while it is being set up."""
    while not over.wait(0.05) and not list(runs.glob(f"*/{STARVED}/ready")):
        pass
    quota.limit()
    while not over.wait(0.05):
        lines = [len(path.read_bytes().splitlines()) for path in runs.glob(f"*/{STARVED}/samples.jsonl")]
        if sum(lines) >= QUERIES:
            break
    quota.lift()


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it has ended


def starve_while_probing(quota: CpuQuota, runs: Path, over: threading.Event) -> None:
    """Hold the node back while its CPU is probed: until the probe of its memory has begun to fill it."""

    def probing() -> bool:
        return any('"probes"' in path.read_text() for path in runs.glob(f"*/{STARVED}/progress.json"))

    while not over.wait(0.02) and not probing():
        pass
    quota.limit()
    while not over.wait(0.05) and probing():
        if any(resident_bytes(pid) > 2**28 for pid in quota.held()):
            break
    quota.lift()


def test_a_slow_probe_names_its_node(nodes: Cluster, quota: CpuQuota, light_venv: Path, tmp_path: Path) -> None:
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    settings = {"benchmark_profile": "hardware", "benchmark_probes": "on"}
    playbooks = Playbooks(nodes, tmp_path, light_venv, control_path, settings)
    hosts = {name: nodes.host(name) for name in (HEALTHY[0], STARVED)}
    sshd = nodes.nodes[STARVED].process
    assert sshd is not None
    quota.put(sshd.pid)
    over = threading.Event()
    starving = threading.Thread(target=starve_while_probing, args=(quota, tmp_path / "nodes" / STARVED / "runs", over))
    starving.start()
    try:
        done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    finally:
        over.set()
        starving.join()
        shutil.rmtree(control_path, ignore_errors=True)
    assert done.code == 0, done.output
    found = {one["node"]: Finding.model_validate(one) for one in done.cluster["findings"]}
    assert STARVED in found, done.summary
    named = " ".join([label(found[STARVED].metric), *found[STARVED].also])
    assert "cpu one core" in named, found[STARVED]
    assert found[STARVED].against.startswith(f"{HEALTHY[0]}, the only like node")
    text = " ".join(done.summary.split())
    assert f"Slow nodes {STARVED}" in text, done.summary


def test_injected_faults_are_found_by_name(nodes: Cluster, quota: CpuQuota, light_venv: Path, tmp_path: Path) -> None:
    make_model_directory(tmp_path / "model")
    (tmp_path / "profile.yaml").write_text(PROFILE)
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    playbooks = Playbooks(
        nodes, tmp_path, light_venv, control_path, {"benchmark_profile": str(tmp_path / "profile.yaml")}
    )
    hosts = {name: nodes.host(name) for name in nodes.nodes}
    hosts[OTHER]["python_env_dir"] = str(with_another_version(light_venv, tmp_path / "venv"))
    sshd = nodes.nodes[STARVED].process
    assert sshd is not None
    quota.put(sshd.pid)
    over = threading.Event()
    runs = tmp_path / "nodes" / STARVED / "runs"
    starving = threading.Thread(target=starve_while_measuring, args=(quota, runs, over))
    starving.start()
    try:
        done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    finally:
        over.set()
        starving.join()
        shutil.rmtree(control_path, ignore_errors=True)
    assert done.code == 0, done.output
    found = {one["node"]: Finding.model_validate(one) for one in done.cluster["findings"]}
    assert {STARVED, DELAYED, OTHER} <= found.keys(), done.summary
    assert found[STARVED].cause == "CPU starvation", found[STARVED]
    assert (found[DELAYED].cause, found[DELAYED].evidence) == ("", ()), found[DELAYED]
    assert found[OTHER].cause == "other software version", found[OTHER]
    assert "packages.huggingface_hub is 2.3.0, 2.4.0 on 6 of 6 like nodes." in found[OTHER].evidence
    assert found[DELAYED].against == "the median of 6 like nodes"
    text = " ".join(done.summary.split())
    assert "Slow nodes" in text
    assert "probable cause: CPU starvation" in text
    assert "no cause seen" in text
