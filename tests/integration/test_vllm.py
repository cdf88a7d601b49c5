"""The role and the engine vllm through the real playbook, with a stand-in for vLLM: the real one needs a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import vllm_stand_in
from tests.integration.conftest import BIN, Done, Playbooks
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.ssh_nodes import CHECKOUT
from tests.integration.test_airgap import changed
from tests.integration.test_benchmark import measuring_pid, profile, start, wait_until

INSTALL = "Ensure that vLLM is installed"
MODEL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "vocab_size": 8,
    "max_position_embeddings": 4096,
}


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    """A wheelhouse of the stand-in and what it needs; what was brought once is kept between runs of the tests."""
    directory = CHECKOUT / ".build" / "tests" / "wheelhouse-vllm"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "requirements.txt").write_text(f"vllm=={vllm_stand_in.VERSION}\naiohttp==3.14.5\n")
    vllm_stand_in.make(directory)
    words = [f"WHEELHOUSE={directory}", f"REQUIREMENTS={directory}/requirements.txt", "TORCH_INDEX_URL="]
    done = subprocess.run(
        ["make", "-o", ".venv/.controller", f"BIN={BIN}", "wheelhouse", f"PYTHON={sys.executable}", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture
def served(playbooks: Playbooks, wheelhouse: Path) -> Playbooks:
    """The playbooks with the engine vllm on one node."""
    (playbooks.directory / "model" / "config.json").write_text(json.dumps(MODEL))
    playbooks.variables = {
        "benchmark_engine": "vllm",
        "vllm_dir": str(playbooks.directory / "its own" / "vllm"),
        "vllm_requirements": str(wheelhouse / "requirements.txt"),
        "vllm_wheelhouse": str(wheelhouse),
        "vllm_min_free_gb": 0.1,
    }
    return playbooks


def result(done: Done) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(next(done.run_dir.glob("nodes/jw2/mlperf_*.json")).read_text())
    return content


def test_it_is_installed_started_measured_recorded_and_ended(served: Playbooks) -> None:
    done = served.run("benchmark", "--limit", "jw2")
    assert done.code == 0, done.output
    assert changed(done, INSTALL) == ["jw2"]
    assert_measured(result(done), served.directory)
    log = (done.run_dir / "nodes" / "jw2" / "endpoint.log").read_text()
    assert log.startswith("serving Namespace(")
    assert_nothing_runs(served.directory)

    # Once more: nothing to install, and a server that does not take its words.
    refused = served.run(
        "benchmark", "--limit", "jw2", "-e", '{"benchmark_engine_options": {"arguments": ["--no-such-word"]}}'
    )
    assert refused.code != 0
    assert changed(refused, INSTALL) == []
    reason = refused.row("jw2")["reason"]
    assert "vLLM ended with exit code 2. The first error in endpoint.log: vllm serve: error: " in reason
    assert "error: unrecognized arguments: --no-such-word" in reason
    assert_nothing_runs(served.directory)

    # And a run that is killed while it measures.
    slow = profile(served.directory, samples=50_000)
    process = start(served, "--limit", "jw2", "-e", f"benchmark_profile={slow}")
    pid = wait_until("jw2 measures", lambda: measuring_pid(served, "jw2"), process)
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "The benchmark was killed (SIGKILL)" in " ".join(output.split())
    assert_nothing_runs(served.directory)


def assert_measured(reported: dict[str, Any], directory: Path) -> None:
    """Hold a node's result against what was asked."""
    assert reported["metrics"]["queries"]["completed"] == 8
    assert reported["metrics"]["output_tokens"] == 8 * 8
    assert reported["environment"]["server_packages"] == {"vllm": vllm_stand_in.VERSION}
    engine = reported["engine"]
    assert engine["name"] == "vllm"
    details = engine["details"]
    assert details["version"] == vllm_stand_in.VERSION
    assert details["model"] == f"{directory}/model"
    assert details["refused_fields"] == {"completions": [], "chat": []}
    assert details["counting"]["chat"] == "token ids"
    cache = reported["serving"]["prefix_cache"]
    assert (cache["cached_tokens"], cache["source"]) == (0, "vllm:prefix_cache_hits_total")
    asked = details["start"]
    for words in (
        f"'{directory}/its own/vllm/bin/vllm' serve {directory}/model --served-model-name {directory}/model ",
        " --host 127.0.0.1 --port ",
        " --dtype float32 --max-model-len 4096 ",
        " --no-enable-prefix-caching --generation-config vllm --load-format safetensors ",
        " --no-enable-log-requests --disable-uvicorn-access-log",
        "HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 ",
    ):
        assert words in asked
