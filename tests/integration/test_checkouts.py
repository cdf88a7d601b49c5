"""Two checkouts that share an account and its directories on the nodes: each measures with its own code."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.code import wheel_sha256
from tests.integration.conftest import Playbooks
from tests.integration.ssh_nodes import CHECKOUT
from tests.integration.test_airgap import changed

PROVIDE = "Ensure that the Python environment and the benchmark are installed"


@pytest.fixture
def other(playbooks: Playbooks, tmp_path: Path) -> Playbooks:
    """Another checkout, whose simulated engine is another; it is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    checkout = tmp_path / "other checkout"
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, checkout / name)
    with (checkout / "benchmark/node/engines/simulated.py").open("a") as engine:
        engine.write("# another one\n")
    (tmp_path / "other").mkdir()
    return replace(playbooks, directory=tmp_path / "other", checkout=checkout)


def code_of(run_dir: Path, node: str) -> dict[str, Any]:
    result = json.loads(next(run_dir.glob(f"nodes/{node}/mlperf_*.json")).read_text())
    code: dict[str, Any] = result["environment"]["code"]
    return code


def test_each_measures_with_its_own_code_and_neither_reinstalls(playbooks: Playbooks, other: Playbooks) -> None:
    settings = {name: playbooks.settings()[name] for name in ("benchmark_model", "benchmark_work_dir", "hf_cache_dir")}
    other.variables = settings
    made = other.run("provision", "--limit", "jw2")
    assert made.code == 0, made.output
    assert changed(made, PROVIDE), "its code was not there"
    seen = {}
    for which in (playbooks, other):
        done = which.run("benchmark", "--limit", "jw2")
        assert done.code == 0, done.output
        assert PROVIDE not in done.output, "both are kept"
        (wheel,) = (which.checkout / ".build").glob("*.whl")
        seen[which.checkout] = code_of(done.run_dir, "jw2")
        assert seen[which.checkout]["sha256"] == wheel_sha256(wheel)
        (attempt,) = json.loads((done.run_dir / "run.json").read_text())["attempts"]
        assert attempt["code"] == seen[which.checkout]
        for place in ("benchmark_summary.txt", "report.html"):
            assert attempt["code"]["sha256"][:12] in (done.run_dir / place).read_text()
    own, others = seen[playbooks.checkout], seen[other.checkout]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert (own["commit"], others["commit"]) == (head.stdout.strip(), "")
    assert own["sha256"] != others["sha256"]

    # What is changed on the node itself is no checkout's.
    (engine,) = playbooks.venv.parent.glob(
        f"*/code/{others['sha256'][:12]}/lib/*/*/benchmark/node/engines/simulated.py"
    )
    with engine.open("a") as file:
        file.write("# and yet another\n")
    refused = other.run("benchmark", "--limit", "jw2")
    assert refused.code != 0
    reason = refused.row("jw2")["reason"]
    assert "was changed by hand, or by another checkout. Nothing was measured" in reason
    assert f"the controller's checkout is {others['sha256'][:12]}" in reason
    assert not list(refused.run_dir.glob("nodes/*/samples.jsonl"))
