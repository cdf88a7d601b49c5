"""A ladder of loads over real SSH: nodes in step with each other, and what dies on the way."""

import json
import os
import subprocess
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import yaml

from benchmark.rundir import of_repeat
from tests.integration.conftest import DATA, REAL, Done, Playbooks
from tests.integration.test_benchmark import measuring_pid, start, wait_until


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


def at_step(playbooks: Playbooks, node: str, number: int) -> int | None:
    """Return the pid of the node's benchmark once it was told when to begin that step."""
    begun = (playbooks.directory / "nodes" / node / "runs").glob(f"*/{node}/{of_repeat('go', number)}")
    return measuring_pid(playbooks, node) if any(begun) else None


def kill(playbooks: Playbooks, node: str, number: int, process: subprocess.Popen[str]) -> None:
    """Kill the node's benchmark in that step, as the kernel would: it says nothing more."""
    os.kill(wait_until(f"{node} is in step {number}", lambda: at_step(playbooks, node, number), process), SIGKILL)


def steps_of(done: Done, node: str) -> list[float]:
    (curve,) = (one for one in done.cluster["sweep"]["curves"] if one["of"] == node)
    return [point["step"] for point in curve["points"]]


@pytest.mark.timeout(580)
def test_what_dies_in_a_step_costs_that_step_alone(playbooks: Playbooks) -> None:
    """A node, the controller with the other node, and then the first node again."""
    # Four rounds of each: 16 queries with 4 in flight pass the limit. Answers take so long that there is time to kill.
    limits = [{"metric": "queries.completed", "at_most": 12}]
    sweep = {"concurrency": [1, 2, 3, 4, 5], "least_growth": 0, "limits": limits, "stop_at_limits": True}
    options = {"scenario_options": {"min_query_count": 4}, "engine_options": {"ttft_ms": 500, "tpot_ms": 20}}
    words = ("-e", f"benchmark_profile={ladder(playbooks.directory, [], sweep=sweep, **options)}")
    process = start(playbooks, *words)
    kill(playbooks, "jw3", 2, process)
    wait_until("jw2 goes on without it", lambda: at_step(playbooks, "jw2", 3), process)
    process.kill()
    process.communicate()
    os.kill(at_step(playbooks, "jw2", 3) or 0, SIGKILL)
    run_dir = (playbooks.results / "latest").resolve()
    assert not list((run_dir / "nodes" / "jw2").glob("*samples.jsonl")), "what it measured is on the node alone"

    # Resumed, both go on with the step that jw3 lacks. It dies in the one after that.
    again = start(playbooks, *words, "-e", "benchmark_resume=latest")
    kill(playbooks, "jw3", 2, again)
    output, _ = again.communicate(timeout=200)
    done = Done(again.returncode, output, run_dir)
    orders = [json.loads((run_dir / "nodes" / node / "order.json").read_text()) for node in ("jw2", "jw3")]
    assert [(order["attempt"], order["first_step"], order["measurements"]) for order in orders] == [(2, 2, 4)] * 2
    assert "jw2: resumes with step 2 of 5" in output
    assert steps_of(done, "jw2") == [1, 2, 3, 4], output
    assert steps_of(done, "jw3") == [1, 2]
    assert (done.row("jw2")["counted"], done.row("jw3")["status"]) == (True, "interrupted"), done.summary
    (curve,) = (one for one in done.cluster["sweep"]["curves"] if one["of"] == "jw2")
    assert curve["ended"].startswith("A limit is exceeded at 4 in flight")
    assert [point["queries"] for point in curve["points"]] == [4, 8, 12, 16]
    assert "jw3: the curve" in done.summary
    for number, window in enumerate(windows(run_dir, "jw2"), start=1):
        agreed = json.loads((run_dir / of_repeat("start.json", number)).read_text())
        clock = json.loads((run_dir / "nodes" / "jw2" / of_repeat("ready.json", number)).read_text())
        assert window["asked_unix_ns"] == agreed["start_unix_ns"] + clock["offset_ns"], "one start for all"
        assert agreed["nodes"] == (["jw2", "jw3"] if number <= 2 else ["jw2"])
    aside = run_dir / "nodes" / "jw2" / "attempt-1"
    assert [len((aside / of_repeat("samples.jsonl", step)).read_text().splitlines()) for step in (1, 2)] == [4, 8]


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
