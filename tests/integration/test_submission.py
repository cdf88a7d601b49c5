"""playbooks/submission.yml against real SSH nodes: scenario by scenario, resumed where it stopped, then the tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import REAL, Playbooks, without_torch
from tests.integration.ssh_nodes import SESSION, loopback
from tests.integration.test_whole_job import articles
from tests.unit.cluster.submission.checker import complaints
from tests.unit.cluster.submission.conftest import ANSWERS


def short(directory: Path, scenario: str) -> str:
    """Write MLPerf's profile of a scenario, made so short that a test can wait for it; return its path."""
    content = {
        "name": f"short-{scenario.lower()}",
        "version": 1,
        "scenario": "loadgen",
        "scenario_options": {"scenario": scenario, "min_duration_ms": 500, "min_query_count": 30},
        "engine": "simulated",
        "dataset": "cnn_dailymail",
        "generation": {"max_new_tokens": 8, "min_new_tokens": 1},
        "limits": [{"metric": "queries.failed", "at_most": 0}],
    }
    path = directory / f"{scenario}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def hosts(playbooks: Playbooks, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """jw3, and jw4, which measures: loading a tokenizer beside torch would be most of its time."""
    cluster = playbooks.cluster
    jw4 = cluster.add("jw4", loopback(4), f"{SESSION} PYTHONPATH={without_torch(tmp_path)}\n")
    try:
        yield {name: cluster.host(name) for name in ("jw3", "jw4")}
    finally:
        jw4.stop()
        del cluster.nodes["jw4"]
        cluster.trust()


@pytest.mark.timeout(580)
def test_scenario_by_scenario_and_then_the_tree(
    playbooks: Playbooks, full_venv: Path, tiny_model: Path, hosts: dict[str, Any], tmp_path: Path
) -> None:
    playbooks.venv = full_venv
    playbooks.variables = {
        **REAL,
        "benchmark_model": str(tiny_model),
        "hf_cache_source": "none",
        "benchmark_dataset_path": articles(tmp_path / "cnn_eval.json", 30),
        "benchmark_target_qps": 60,
    }
    profiles = {name: short(tmp_path, name) for name in ("Offline", "Server")}
    variables = {
        "submission_submitter": "Us",
        "submission_division": "closed",
        "submission_system": str(tmp_path / "system.yml"),
        "submission_output": str(tmp_path / "tree"),
        "submission_profiles": profiles,
    }
    words = ["-e", json.dumps(variables)]
    inventory = playbooks.inventory(hosts)

    # The plan is reported, and nothing is touched.
    plan = playbooks.run("submission", *words, "--check", inventory=inventory)
    assert plan.code == 0, plan.output
    assert "Together about 7 min" in plan.output  # 13,368 articles twice at 60 a second, the rest is short
    assert not playbooks.results.exists()
    assert not (tmp_path / "system.yml").exists()
    (tmp_path / "system.yml").write_text(ANSWERS)

    # The first scenario alone, as where somebody stopped after it. One node: it loads a tokenizer for each run.
    words += ["--limit", "jw4"]
    alone = ["-e", "submission_scenarios=Offline", "-e", f"submission_output={tmp_path}/one"]
    first = playbooks.run("submission", *words, *alone, inventory=inventory)
    assert first.code == 0, first.output
    latest = playbooks.results / "submission-datacenter-closed/offline/latest"
    offline = latest.resolve()
    assert "Offline: TEST06" not in complaints(tmp_path / "one")

    done = playbooks.run("submission", *words, inventory=inventory)
    assert done.code == 0, done.output
    measured = f"Step 1 of 2, Offline: already measured in the run {offline.name} (short-offline, target 60.0)."
    assert measured in done.output
    assert latest.resolve() == offline
    (system,) = (tmp_path / "tree/closed/Us/results").iterdir()
    assert system.name == "A_server"
    assert {path.name for path in (system / "llama3.1-8b").iterdir()} == set(profiles)
    # Nothing of Offline, Server and their audits is absent: what is wrong comes of their length and of the tiny model.
    kinds = {complaint.partition(": ")[2] for complaint in complaints(tmp_path / "tree")}
    short_ones = {"sample count", "samples per query", "duration", "articles", "early stopping", "gen_len"}
    assert kinds <= short_ones | {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert "Missing:" in done.output
