"""The whole job, nothing simulated: a gated model from the stand-in for the hub, real weights, real `generate`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Hub
from tests.integration.conftest import BIN, Playbooks
from tests.integration.ssh_nodes import CHECKOUT

TOKEN = "hf_" + "ThisMustBeNowhere" * 2
MODEL = "org/tiny-llama"


@pytest.fixture(scope="module")
def full_venv() -> Path:
    """The nodes' real environment, torch included; kept between runs of the tests, the role renews what is stale."""
    return CHECKOUT / ".build" / "tests" / "venv"


@pytest.fixture
def whole(playbooks: Playbooks, full_venv: Path) -> Playbooks:
    """Two nodes with hf_cache_source hub, the sequential engine and the profile quick."""
    playbooks.venv = full_venv
    playbooks.variables = {
        "benchmark_profile": "quick",
        "benchmark_model": MODEL,
        "hf_cache_source": "hub",
        "hf_cache_min_free_gb": 0,
        "python_env_requirements": "requirements-node.txt",
        "python_env_torch_index_url": os.environ.get("TORCH_INDEX_URL", ""),
        "python_env_min_free_gb": 1,
        "benchmark_timeout_s": 240,
    }
    return playbooks


def tiny_model(directory: Path) -> dict[str, bytes]:
    """Return the files of a tiny Llama as a repository would hold them."""
    command = [sys.executable, "-m", "benchmark", "tiny-model", str(directory)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.timeout(580)
def test_the_whole_job_and_the_token_is_nowhere(whole: Playbooks, tmp_path: Path) -> None:
    with Hub() as hub:
        model = hub.add(MODEL, tiny_model(tmp_path / "tiny"), needs_token=TOKEN)
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
        assert result["engine"]["name"] == "sequential"
        assert result["engine"]["details"]["commit"] == model.commit
        assert result["metrics"]["queries"]["completed"] == 20
        assert result["metrics"]["output_tokens"] == 20 * 64
        assert len(result["verdict"]["checks"]) == 5
        assert result["environment"]["packages"]["torch"].startswith("2.13.0")

    assert TOKEN not in done.output + again.output
    searched = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 50_000_000]
    assert any(path.name == "ansible.log" for path in searched)
    assert any(path.name == "samples.jsonl" for path in searched)
    assert [path for path in searched if TOKEN.encode() in path.read_bytes()] == []


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
    assert (playbooks.results / "latest" / "benchmark_summary.txt").exists()

    invalid = playbooks.inventory(benchmark_target_qps=100000, benchmark_fail_on_invalid=True)
    command = ["ansible-runner", "run", ".", "-p", "playbooks/benchmark.yml", "--inventory", str(invalid)]
    command += ["--artifact-dir", str(tmp_path / "artifacts")]
    verdict = subprocess.run(
        command, cwd=CHECKOUT, env=playbooks.environment(), capture_output=True, text=True, check=False
    )
    assert verdict.returncode != 0
    assert "INVALID" in verdict.stdout


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


def test_runner_with_the_checkouts_own_inventory_sees_the_real_nodes_only() -> None:
    done = subprocess.run(
        [str(BIN / "ansible-inventory"), "-i", "inventory", "--graph"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "jw2" in done.stdout
    assert "local1" not in done.stdout


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
