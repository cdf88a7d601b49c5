"""playbooks/submission.yml against real SSH nodes: scenario by scenario, resumed where it stopped, then the tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import REAL, Playbooks
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


@pytest.mark.timeout(580)
def test_scenario_by_scenario_and_then_the_tree(
    playbooks: Playbooks, full_venv: Path, tiny_model: Path, tmp_path: Path
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

    # The plan is told, and nothing is touched.
    plan = playbooks.run("submission", *words, "--check")
    assert plan.code == 0, plan.output
    assert "Together about 30 min" in plan.output  # two scenarios of 11 min, and 13,368 articles twice at 60 a second
    assert not playbooks.results.exists()
    assert not (tmp_path / "system.yml").exists()
    (tmp_path / "system.yml").write_text(ANSWERS)

    # The first scenario of the first node alone, as where the other was lost and somebody stopped there.
    begun = ["--limit", "jw2", "-e", "submission_scenarios=Offline", "-e", f"submission_output={tmp_path}/one"]
    first = playbooks.run("submission", *words, *begun)
    assert first.code == 0, first.output
    latest = playbooks.results / "submission-datacenter-closed/offline/latest"
    offline = latest.resolve()
    (alone,) = (tmp_path / "one/closed/Us/systems").iterdir()
    assert alone.name == "A_server.json"
    samples = (offline / "nodes/jw2/samples.jsonl").read_bytes()

    done = playbooks.run("submission", *words)
    assert done.code == 0, done.output
    plan_line = f"Step 1 of 2, Offline, goes on in the run {offline.name} (short-offline, target 60.0) with jw3: "
    assert plan_line in done.output
    assert latest.resolve() == offline
    assert (offline / "nodes/jw2/samples.jsonl").read_bytes() == samples
    systems = sorted(path.name for path in (tmp_path / "tree/closed/Us/results").iterdir())
    assert systems == ["A_server-1", "A_server-2"]
    assert {path.name for path in (tmp_path / "tree/closed/Us/results/A_server-1/llama3.1-8b").iterdir()} == set(
        profiles
    )
    # Nothing of Offline, Server and their audits is absent: what is wrong comes of their length and of the tiny model.
    kinds = {complaint.partition(": ")[2] for complaint in complaints(tmp_path / "tree")}
    short_ones = {"sample count", "samples per query", "duration", "articles", "early stopping", "gen_len"}
    assert kinds <= short_ones | {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert "Missing:" in done.output
