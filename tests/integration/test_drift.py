"""Two nodes that should be alike and are not: one has another package. Told, or stopped before anything is measured."""

import json
from pathlib import Path

import pytest

from tests.integration.conftest import Playbooks, copy_environment


def with_another_version(venv: Path, place: Path) -> Path:
    """Copy an environment to `place`, and let one package there be of another version."""
    copy_environment(venv, place)
    (metadata,) = place.glob("lib/python3*/site-packages/huggingface_hub-*.dist-info/METADATA")
    text = metadata.read_text().replace("\nVersion: 2.4.0\n", "\nVersion: 2.3.0\n")
    metadata.unlink()  # it is a link to the other one's
    metadata.write_text(text)
    return place


def unlike(playbooks: Playbooks, **settings: str | bool) -> Path:
    """Return an inventory in which jw3 has an environment of its own, with another version of one package."""
    hosts = {node: playbooks.cluster.host(node) for node in ("jw2", "jw3")}
    hosts["jw3"]["python_env_dir"] = str(with_another_version(playbooks.venv, playbooks.directory / "other"))
    return playbooks.inventory(hosts, **settings)


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_node_with_another_model_is_reported(playbooks: Playbooks) -> None:
    done = playbooks.run("benchmark", inventory=unlike(playbooks))
    assert done.code == 0, done.output
    assert done.cluster["counted"] == 2
    (drift,) = done.cluster["drift"]
    assert drift["fact"] == "packages.huggingface_hub"
    assert drift["values"] == {"2.3.0": ["jw3"], "2.4.0": ["jw2"]}
    assert "Drift: nodes with the same hardware differ" in done.summary
    assert "packages.huggingface_hub 2.3.0: jw3 2.4.0: jw2" in words(done.summary)
    ready = json.loads((done.run_dir / "nodes" / "jw3" / "ready.json").read_text())
    assert ready["environment"]["packages"]["huggingface_hub"] == "2.3.0"
    (result,) = (done.run_dir / "nodes" / "jw3").glob("mlperf_datacenter_*.json")
    assert ready["environment"] == json.loads(result.read_text())["environment"]


@pytest.mark.parametrize("solo_first", [False, True], ids=["", "solo first"])
def test_drift_that_fails_ends_the_run_before_measuring(playbooks: Playbooks, solo_first: bool) -> None:
    inventory = unlike(playbooks, benchmark_drift="fail", benchmark_solo_first=solo_first)
    done = playbooks.run("benchmark", inventory=inventory)
    assert done.code != 0
    for node in ("jw2", "jw3"):
        row = done.row(node)
        assert (row["status"], row["counted"]) == ("interrupted", False), done.output
        assert "benchmark: Drift, and benchmark_drift is fail" in row["reason"]
        assert "differ in packages.huggingface_hub: 2.3.0 (jw3), 2.4.0 (jw2)." in row["reason"]
        assert "Interrupted while it waited for the other nodes" in row["reason"]
        assert not list((done.run_dir / "nodes" / node).glob("*samples.jsonl"))
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
