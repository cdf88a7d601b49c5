"""A ladder of loads over real SSH: nodes in step with each other, and one that dies on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.rundir import of_repeat
from tests.integration.conftest import DATA, REAL, Playbooks


def ladder(directory: Path, steps: list[int], **changes: Any) -> str:
    """Write the fast profile with a ladder of loads."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    content |= {"scenario_options": {"min_query_count": 8}, "sweep": {"concurrency": steps, "least_growth": 0}}
    content |= changes
    del content["samples"]
    content["limits"] = content["limits"][:1]
    path = directory / "ladder.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def windows(run_dir: Path, node: str) -> list[dict[str, Any]]:
    (path,) = (run_dir / "nodes" / node).glob("mlperf_datacenter_*.json")
    result = json.loads(path.read_text())
    return [result["window"], *(repeat["window"] for repeat in result["repeats"])]


@pytest.mark.timeout(580)
def test_a_node_that_dies_in_a_step_costs_the_others_none(playbooks: Playbooks) -> None:
    # Four rounds of each: 64 queries with 16 in flight pass the limit. Answers take so long that steps do not go down.
    limits = [{"metric": "queries.completed", "at_most": 40}]
    sweep = {"concurrency": [1, 2, 4, 8, 16, 32], "least_growth": 0, "limits": limits, "stop_at_limits": True}
    profile = ladder(playbooks.directory, [], sweep=sweep, engine_options={"ttft_ms": 120, "tpot_ms": 5})
    hosts = {name: playbooks.cluster.host(name) for name in ("jw2", "jw3")}
    # Four rounds of four are 16 queries: it breaks in the step after that.
    hosts["jw3"]["benchmark_engine_options"] = {"break_at": 20}
    done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts, benchmark_profile=profile))
    assert done.row("jw2")["counted"], done.summary
    assert done.row("jw3")["status"] == "failed"
    curves = {curve["of"]: curve for curve in done.cluster["sweep"]["curves"] if curve["kind"] == "node"}
    steps = {name: [point["step"] for point in curve["points"]] for name, curve in curves.items()}
    assert steps["jw3"] == [1, 2, 4], "what it had measured is kept"
    assert steps["jw2"] == [1, 2, 4, 8, 16], "and the others go on without it"
    assert curves["jw2"]["ended"].startswith("A limit is passed at 16 in flight")
    for number, window in enumerate(windows(done.run_dir, "jw2"), start=1):
        start = json.loads((done.run_dir / of_repeat("start.json", number)).read_text())
        clock = json.loads((done.run_dir / "nodes" / "jw2" / of_repeat("ready.json", number)).read_text())
        assert window["asked_unix_ns"] == start["start_unix_ns"] + clock["offset_ns"], "one start for all"
        assert start["nodes"] == (["jw2", "jw3"] if number <= 4 else ["jw2"])
    assert "jw3: the curve" in done.summary
    # Resumed, jw3 goes on with the step that it lacks, and then breaks again: what is there stays.
    words = ("-e", f"benchmark_resume={done.run_dir.name}")
    again = playbooks.run("benchmark", *words, inventory=playbooks.inventory(hosts, benchmark_profile=profile))
    order = json.loads((again.run_dir / "nodes" / "jw3" / "order.json").read_text())
    assert (order["attempt"], order["first_step"], order["measurements"]) == (2, 4, 3)
    (curve,) = (one for one in again.cluster["sweep"]["curves"] if one["of"] == "jw3")
    assert [point["step"] for point in curve["points"]] == [1, 2, 4]


@pytest.mark.timeout(580)
def test_a_model_climbs_its_ladder_on_two_nodes(playbooks: Playbooks, full_venv: Path, tiny_model: Path) -> None:
    playbooks.venv = full_venv
    steps = [1, 4]
    profile = ladder(playbooks.directory, steps, engine="continuous", engine_options={})
    playbooks.variables = {**REAL, "benchmark_model": str(tiny_model), "benchmark_profile": profile}
    done = playbooks.run("benchmark")
    assert done.cluster["counted"] == 2, done.output
    for curve in done.cluster["sweep"]["curves"]:
        assert [point["step"] for point in curve["points"]] == steps
        for point in curve["points"]:
            assert point["nodes"] == (2 if curve["kind"] == "group" else 1)
            assert point["tokens_per_s_per_gpu"] > 0
            assert point["tokens_per_s_per_user"] > 0
    for name in ("jw2", "jw3"):
        assert (done.run_dir / "nodes" / name / "benchmark.log").read_text().count(": loading") == 1
