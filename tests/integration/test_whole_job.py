"""The whole job, nothing simulated: a gated model from the stand-in for the hub, real weights, real `generate`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub_server import Hub
from tests.integration.conftest import BIN, REAL, Playbooks
from tests.integration.ssh_nodes import CHECKOUT, loopback

TOKEN = "hf_" + "ThisMustBeNowhere" * 2
MODEL = "org/tiny-llama"


@pytest.fixture
def whole(playbooks: Playbooks, full_venv: Path) -> Playbooks:
    """Two nodes with hf_cache_source hub and the profile quick, which the engine continuous answers."""
    playbooks.venv = full_venv
    playbooks.variables = {
        "benchmark_profile": "quick",
        "benchmark_model": MODEL,
        "hf_cache_source": "hub",
        "hf_cache_min_free_gb": 0,
        **REAL,
        "python_env_min_free_gb": 1,
        "benchmark_timeout_s": 240,
    }
    return playbooks


@pytest.mark.timeout(580)
def test_the_whole_job_and_the_token_is_nowhere(whole: Playbooks, tiny_model: Path, tmp_path: Path) -> None:
    with Hub() as hub:
        model = hub.add(MODEL, {path.name: path.read_bytes() for path in tiny_model.iterdir()}, needs_token=TOKEN)
        inventory = whole.inventory(
            benchmark_model_revision=model.commit, node_environment={"HF_ENDPOINT": hub.url, "NO_PROXY": "*"}
        )
        secret = {"HF_TOKEN": TOKEN, "ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log"), "ANSIBLE_DEBUG": "0"}
        done = whole.run("benchmark", "-vvvvv", inventory=inventory, **secret)
        assert done.code == 0, done.output[-4000:]
        assert all(request.authorised != request.to_storage for request in hub.downloads())
        before = len(hub.requests)
        again = whole.run("provision", inventory=inventory, **secret)
        assert (again.recap("jw2")["changed"], again.recap("jw3")["changed"]) == (0, 0), again.output
        assert len(hub.requests) == before, "what was verified is not asked for again"

    cluster = done.cluster
    assert cluster["counted"] == 2
    results = [json.loads(next(done.run_dir.glob(f"nodes/{n}/mlperf_*.json")).read_text()) for n in ("jw2", "jw3")]
    for result in results:
        assert (result["status"], result["resolved"]["profile"]["name"]) == ("complete", "quick")
        assert result["engine"]["name"] == "continuous"
        assert result["engine"]["details"]["commit"] == model.commit
        assert result["metrics"]["queries"]["completed"] == 20
        assert result["metrics"]["output_tokens"] == 20 * 64
        assert [len(tokens) for tokens in result["accuracy"]["greedy"].values()] == [64] * 4
        assert len(result["verdict"]["checks"]) == 5
        assert result["environment"]["packages"]["torch"].startswith("2.13.0")

    assert TOKEN not in done.output + again.output
    searched = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 50_000_000]
    assert any(path.name == "ansible.log" for path in searched)
    assert any(path.name == "samples.jsonl" for path in searched)
    assert [path for path in searched if TOKEN.encode() in path.read_bytes()] == []


LOADGEN = {
    "name": "short",
    "version": 1,
    "kind": "self-test",
    "scenario": "loadgen",
    "engine": "continuous",
    "dataset": "cnn_dailymail",
    "warmup": 2,
    "generation": {"max_new_tokens": 8, "min_new_tokens": 1},
    "limits": [{"metric": "queries.failed", "at_most": 0}],
}


def short(directory: Path, scenario: str, **options: int) -> str:
    """Write a profile of LoadGen's scenario whose duration and counts suit a test; return its path."""
    path = directory / f"{scenario}.yaml"
    limits = {"scenario": scenario, "min_duration_ms": 1500, "min_query_count": 30, **options}
    path.write_text(yaml.safe_dump({**LOADGEN, "scenario_options": limits}))
    return str(path)


def articles(path: Path, count: int) -> str:
    """Write a prepared dataset as MLPerf's preprocessing leaves it; return its path."""
    entries = [
        {
            "input": f"Article {i}.",
            "tok_input": [5 + (i + j) % 400 for j in range(20)],
            "output": f"It says {i}. That is all.",
        }
        for i in range(count)
    ]
    path.write_text(json.dumps(entries))
    return str(path)


def check_against_loadgen(run_dir: Path, node: str, scenario: str) -> dict[str, Any]:
    """Hold the node's JSON against LoadGen's own files; return the node's result."""
    directory = run_dir / "nodes" / node
    result: dict[str, Any] = json.loads(next(directory.glob("mlperf_datacenter_*.json")).read_text())
    loadgen = result["loadgen"]
    assert loadgen["settings"]["scenario"] == scenario
    assert loadgen["summary"]["Scenario"] == scenario
    printed = (directory / "mlperf_log_summary.txt").read_text()
    for label, value in loadgen["summary"].items():
        assert re.search(rf"^ *{re.escape(label)} *: *{re.escape(value)} *$", printed, re.M), label
    for name in ("accuracy.json", "detail.txt", "summary.txt", "trace.json"):
        assert (directory / f"mlperf_log_{name}").stat().st_size
    return result


@pytest.mark.timeout(580)
def test_loadgen_drives_an_engine_in_each_scenario(whole: Playbooks, tiny_model: Path, tmp_path: Path) -> None:
    whole.variables |= {
        "benchmark_model": str(tiny_model),
        "hf_cache_source": "none",
        "benchmark_dataset_path": articles(tmp_path / "cnn_eval.json", 30),
        "benchmark_target_qps": 20,
    }
    # Another on each node: as queries come, two replicas at once, and one query at a time with the answers judged.
    third = whole.cluster.add("jw4", loopback(4))
    hosts = {name: whole.cluster.host(name) for name in ("jw2", "jw3", "jw4")}
    hosts["jw2"]["benchmark_profile"] = short(tmp_path, "Server")
    hosts["jw3"] |= {"benchmark_profile": short(tmp_path, "Offline"), "benchmark_replicas": 2}
    hosts["jw4"] |= {
        "benchmark_profile": short(tmp_path, "SingleStream"),
        "benchmark_engine": "sequential",
        "benchmark_accuracy": "with-performance",
    }
    try:
        done = whole.run("benchmark", inventory=whole.inventory(hosts))
    finally:
        third.stop()
        del whole.cluster.nodes["jw4"]
    assert done.code == 0, done.output
    assert done.cluster["counted"] == 3, done.summary
    assert len(done.cluster["groups"]) == 3, "unlike runs are not summed"
    server = check_against_loadgen(done.run_dir, "jw2", "Server")
    assert server["engine"]["name"] == "continuous"
    assert server["metrics"]["qps"] == server["loadgen"]["results"]["result_completed_samples_per_sec"]
    assert done.row("jw2")["metrics"] == server["metrics"]
    offline = check_against_loadgen(done.run_dir, "jw3", "Offline")
    assert offline["engine"]["replicas"] == 2
    single = check_against_loadgen(done.run_dir, "jw4", "SingleStream")
    assert single["engine"]["name"] == "sequential"
    assert single["accuracy"]["rouge"]["answers"] == 30
    assert single["accuracy"]["loadgen"]["mode"] == "AccuracyOnly"


def test_the_same_through_ansible_runner(playbooks: Playbooks, tmp_path: Path) -> None:
    inventory = playbooks.inventory()
    script = (
        "import ansible_runner, sys\n"
        f"run = ansible_runner.run(private_data_dir={str(CHECKOUT)!r}, playbook='playbooks/benchmark.yml',\n"
        f"    inventory={str(inventory)!r}, artifact_dir={str(tmp_path / 'artifacts')!r})\n"
        "print('STATUS', run.status, run.rc, sorted(run.stats['failures']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=playbooks.environment(), capture_output=True, text=True, check=True
    )
    assert "STATUS successful 0 []" in done.stdout, done.stdout
    made = {path.name for path in (playbooks.results / "latest").iterdir()}
    assert {"benchmark_summary.txt", "benchmark_summary.md", "nodes.csv", "report.html"} <= made


def test_ansible_runner_keeps_host_key_checking(playbooks: Playbooks, tmp_path: Path) -> None:
    playbooks.cluster.known_hosts.write_text("")
    try:
        command = [str(BIN / "ansible-runner"), "run", ".", "-p", "playbooks/preflight.yml"]
        command += ["--inventory", str(playbooks.inventory()), "--artifact-dir", str(tmp_path / "artifacts")]
        done = subprocess.run(
            command, cwd=CHECKOUT, env=playbooks.environment(), capture_output=True, text=True, check=False
        )
    finally:
        playbooks.cluster.trust()
    assert done.returncode != 0
    assert "is not known: connect once with ssh" in " ".join(done.stdout.split())


def test_runner_with_the_own_inventory_sees_the_real_nodes(tmp_path: Path) -> None:
    inventory = shutil.copytree(CHECKOUT / "inventory", tmp_path / "inventory")
    (inventory / "hosts.yml").write_text("gpu_nodes: {hosts: {mine: {ansible_host: 127.0.0.2}}}\n")
    done = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", str(inventory), "--graph"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mine" in done.stdout
    assert "local1" not in done.stdout
    assert "jw2" not in done.stdout, "the example is nobody's"


def test_the_local_inventory_is_two_nodes_on_this_machine() -> None:
    done = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", "inventory/local", "--graph"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "local2" in done.stdout
    assert "jw2" not in done.stdout
