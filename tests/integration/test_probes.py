"""Runs without a model, a token or a download: the profile hardware on two nodes, and self-test on a third."""

import json
from typing import Any

from tests.integration.conftest import Playbooks

PROBED = {"cpu_one_core", "cpu_all_cores", "host_memory_copy", "disk_read"}


def test_nodes_are_probed_without_any_model(playbooks: Playbooks) -> None:
    hosts = {node: playbooks.cluster.host(node) for node in ("jw2", "jw3")}
    hosts["jw3"]["benchmark_probe_floors"] = {"cpu_one_core": 1e9, "matrix_float8": 1000}
    # This machine has no GPU.
    hosts["tries"] = {
        **playbooks.cluster.host("jw2"),
        "benchmark_profile": "self-test",
        "benchmark_device": "cuda",
        "benchmark_work_dir": str(playbooks.directory / "tries"),
    }
    playbooks.variables = {
        "benchmark_profile": "hardware",
        "benchmark_probes": "on",
        # A hub model that is nowhere, on nodes that may not download: it is not looked for.
        "benchmark_model": "nobody/nothing",
        "benchmark_fail_on_invalid": True,
    }
    done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    assert done.code == 2, done.output
    for node, valid in (("jw2", True), ("jw3", False)):
        row = done.row(node)
        assert (row["status"], row["counted"], row["verdict"]["valid"]) == ("complete", True, valid), done.output
        figures: dict[str, Any] = row["probes"]["node"]
        # Not every file system lets the page cache be passed by.
        assert PROBED - {"disk_read"} <= figures.keys() <= PROBED
        assert all(figure["value"] > 0 for figure in figures.values())
        assert row["probes"]["notes"] == []
        (result,) = (done.run_dir / "nodes" / node).glob("mlperf_datacenter_*.json")
        assert json.loads(result.read_text())["probes"] == row["probes"]
        assert not list((done.run_dir / "nodes" / node).glob("*samples.jsonl"))
    tried = done.row("tries")
    assert (tried["status"], tried["counted"], tried["simulated"]) == ("complete", True, True), done.output
    reason = done.row("jw3")["reason"]
    assert "is below the floor of 1000000000 MB/s." in reason
    assert "There is no figure for matrix float8, and" in reason
    assert done.recap("jw3")["failed"] == 1
