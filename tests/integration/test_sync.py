"""All nodes begin to measure at one agreed time; who is not ready in time is stopped."""

import json
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import DATA, Done, Playbooks
from tests.integration.faults.fleet import Fleet


def profile(directory: Path, name: str, **options: float) -> str:
    """Write the fast profile with other options of its engine; 60 queries of about 55 ms each."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    content |= {"samples": 60, "engine_options": {**content["engine_options"], **options}}
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_nodes_that_load_for_different_times_start_together(playbooks: Playbooks) -> None:
    hosts = {
        node: {
            **playbooks.cluster.host(node),
            # Apart by more than the whole measurement takes: without waiting they would not overlap at all.
            "benchmark_profile": profile(playbooks.directory, node, load_s=load_s),
        }
        for node, load_s in (("jw2", 0), ("jw3", 5))
    }
    done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    assert done.code == 0, done.output
    overlap = done.cluster["overlap"]
    assert overlap["together_s"] > 0
    assert overlap["skew_ms"] is not None
    assert overlap["uncertainty_ms"] > 0
    assert "started within" in " ".join(done.summary.split())
    agreed = json.loads((done.run_dir / "start.json").read_text())
    assert agreed["nodes"] == ["jw2", "jw3"]
    for node in agreed["nodes"]:
        (path,) = (done.run_dir / "nodes" / node).glob("mlperf_datacenter_*.json")
        window = json.loads(path.read_text())["window"]
        clock = json.loads((done.run_dir / "nodes" / node / "ready.json").read_text())
        assert window["asked_unix_ns"] == agreed["start_unix_ns"] + clock["offset_ns"]
        assert window["started_unix_ns"] >= window["asked_unix_ns"] - 1e6  # one machine: the clocks are the same
        assert window["late_ms"] == pytest.approx((window["started_unix_ns"] - window["asked_unix_ns"]) / 1e6)


def test_a_node_that_is_never_ready_is_excluded(playbooks: Playbooks) -> None:
    hosts = {
        "jw2": {
            **playbooks.cluster.host("jw2"),
            "benchmark_profile": profile(playbooks.directory, "stuck", load_s=300),
        },
        "jw3": {**playbooks.cluster.host("jw3"), "benchmark_profile": profile(playbooks.directory, "prompt")},
    }
    inventory = playbooks.inventory(
        hosts, benchmark_sync_timeout_s=8, benchmark_min_nodes="50%", benchmark_fail_on_invalid=True
    )
    done = playbooks.run("benchmark", inventory=inventory)
    assert done.code != 0
    assert done.row("jw3")["counted"], done.output
    behind = done.row("jw2")
    assert (behind["status"], behind["counted"]) == ("interrupted", False)
    assert "benchmark: Not ready to measure within benchmark_sync_timeout_s = 8 s" in behind["reason"]
    assert "it was still loading" in behind["reason"]
    assert done.cluster["verdict"]["valid"], done.summary
    assert (done.recap("jw2")["failed"], done.recap("jw3")["failed"]) == (1, 0)
    assert "VALID: 1 of 2 nodes are counted and valid" in " ".join(done.summary.split())
    assert not list((playbooks.directory / "nodes" / "jw2" / "runs").iterdir()), "it was stopped, fetched and removed"


def test_a_node_lost_while_it_loads_costs_nobody_a_result(playbooks: Playbooks) -> None:
    """Its sshd and all that runs on it end; the other waits for a minute, longer than its own time limit, and measures.

    Then that node is there again, and resumed.
    """
    fleet = Fleet(playbooks, first_address=30)
    fleet.hosts["jw3"] = playbooks.cluster.host("jw3")
    fleet.hosts["jw3"]["benchmark_profile"] = profile(playbooks.directory, "prompt")
    slow = profile(playbooks.directory, "slow", load_s=20)
    fleet.add_own("lost", benchmark_profile=slow)
    try:
        inventory = playbooks.inventory(fleet.hosts, benchmark_timeout_s=30)
        process = playbooks.start(playbooks.command("benchmark", inventory=inventory))
        reported = fleet.place("lost").glob
        while not any("loading" in path.read_text() for path in reported("runs/*/*/progress.json")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        fleet.power_off("lost")
        output, _ = process.communicate(timeout=400)
        first = Done(process.returncode, output, (playbooks.results / "latest").resolve())
        assert (first.row("jw3")["status"], first.row("jw3")["counted"]) == ("complete", True), output
        reason = first.row("lost")["reason"]
        assert "the other nodes had been ready for 60 s: they went on without it" in reason
        assert f"It has measured nothing: -e benchmark_resume={first.run_dir.name} measures it." in reason
        fleet.power_on("lost")
        done = playbooks.run("benchmark", "-e", "benchmark_resume=latest", inventory=inventory)
        assert done.code == 0, done.output
        assert {row["node"]: (row["attempt"], row["counted"]) for row in done.cluster["nodes"]} == {
            "jw3": (1, True),
            "lost": (2, True),
        }
        assert not list(fleet.place("lost").glob("runs/*"))
    finally:
        fleet.close()
