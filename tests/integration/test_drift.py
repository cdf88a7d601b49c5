"""Two nodes that should be alike and are not: one has another model. Told, or stopped before anything is measured."""

import json
from pathlib import Path

from tests.integration.conftest import Playbooks, make_model_directory


def unlike(playbooks: Playbooks, **settings: str) -> Path:
    """Return an inventory in which both nodes mean the same directory, each in a home of its own, and one was changed.

    The nodes share this machine's disk: what they call ~ is told apart by the environment of their sessions.
    """
    hosts = {}
    for node in ("jw2", "jw3"):
        home = playbooks.directory / "home" / node
        make_model_directory(home / "model")
        hosts[node] = {**playbooks.cluster.host(node), "node_environment": {"HOME": str(home)}}
    (home / "model" / "model.safetensors").write_text('{"changed": true}')
    return playbooks.inventory(hosts, benchmark_model="~/model", **settings)


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_node_with_another_model_is_told_and_the_run_counts(playbooks: Playbooks) -> None:
    done = playbooks.run("benchmark", inventory=unlike(playbooks))
    assert done.code == 0, done.output
    assert done.cluster["counted"] == 2
    (drift,) = done.cluster["drift"]
    assert drift["fact"] == "model_sha256"
    assert sorted(drift["values"].values()) == [["jw2"], ["jw3"]]
    assert "Drift: nodes with the same hardware differ" in done.summary
    ready = json.loads((done.run_dir / "nodes" / "jw3" / "ready.json").read_text())
    assert ready["environment"]["model_sha256"][:12] in done.summary


def test_drift_that_fails_ends_the_run_before_anything_is_measured(playbooks: Playbooks) -> None:
    done = playbooks.run("benchmark", inventory=unlike(playbooks, benchmark_drift="fail"))
    assert done.code != 0
    for node in ("jw2", "jw3"):
        row = done.row(node)
        assert (row["status"], row["counted"]) == ("interrupted", False), done.output
        assert "benchmark: Drift, and benchmark_drift is fail" in row["reason"]
        assert "differ in model_sha256: " in row["reason"]
        assert "Interrupted while ready" in row["reason"]
        assert not (done.run_dir / "nodes" / node / "samples.jsonl").exists()
        runs = playbooks.directory / "nodes" / node / "runs"
        assert not list(runs.iterdir()), "it was stopped, fetched and removed"
        assert done.recap(node)["failed"] == 1
    assert not processes_in(playbooks.directory)
    assert "Nothing was measured." in words(done.summary)


def processes_in(directory: Path) -> list[str]:
    """Return the command lines of processes that work under a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
            command = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if where.is_relative_to(directory):
            found.append(command)
    return found
