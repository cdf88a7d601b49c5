"""Nodes whose shells print something of their own around what is asked: nothing of that is taken for an answer."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.node.environments import MARK
from tests.integration.conftest import DATA, Playbooks, make_model_directory, one_package, unmarked
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.ssh_nodes import Cluster, loopback
from tests.integration.test_benchmark import start, wait_until

# First what could pass for the exit code of a run that ended well, then a PATH without the system's programs and the
# home of another Python, last a terminal's title, which ends no line; a greeting, and words after all that was asked.
# Both have pip install elsewhere, as clusters with a file system of their own for packages do.
NOISE = {
    "before": r'echo 0; export PATH=/opt/cuda/bin PYTHONHOME=/opt/python PIP_USER=1; printf "\033]0;x\007"',
    "around": "echo Welcome; export PIP_TARGET=$HOME/packages; trap 'echo 0; echo Goodbye' EXIT",
}
SAMPLES = 40


@pytest.fixture
def noisy(light_venv: Path, tmp_path: Path) -> Iterator[Playbooks]:
    """A node for each."""
    nodes = Cluster(tmp_path / "cluster")
    nodes.directory.mkdir()
    try:
        for number, (name, line) in enumerate(NOISE.items()):
            home = tmp_path / "home" / name
            home.mkdir(parents=True)
            (home / ".bashrc").write_text(f"{line}\n")
            # A first shell, which reads that file.
            nodes.add(name, loopback(30 + number), config=f"SetEnv HOME={home} OMP_NUM_THREADS=1\n")
        make_model_directory(tmp_path / "model")
        (tmp_path / "cp").mkdir()
        yield Playbooks(nodes, tmp_path, light_venv, tmp_path / "cp")
    finally:
        nodes.stop()


def profile(playbooks: Playbooks, **changes: Any) -> str:
    content = {**yaml.safe_load((DATA / "fast.yaml").read_text()), "samples": SAMPLES, **changes}
    path = playbooks.directory / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def check_whole(cluster: dict[str, Any], samples: int = SAMPLES) -> None:
    rows = {row["node"]: row for row in cluster["nodes"]}
    assert {name: (row["status"], row["counted"]) for name, row in rows.items()} == dict.fromkeys(
        NOISE, ("complete", True)
    )
    assert {row["metrics"]["queries"]["completed"] for row in rows.values()} == {samples}


def samples_of(playbooks: Playbooks) -> list[Path]:
    found = (playbooks.directory / "nodes").glob("*/runs/*/*/samples.jsonl")
    return [path for path in found if path.stat().st_size]


@pytest.mark.parametrize("sync", [True, False], ids=["together", "by themselves"])
def test_what_they_measure_is_fetched_once_it_is_whole(noisy: Playbooks, sync: bool) -> None:
    noisy.variables = {"benchmark_profile": profile(noisy), "benchmark_sync_start": sync}
    done = noisy.run("benchmark")
    assert done.code == 0, done.output
    check_whole(done.cluster)
    assert not list((noisy.directory / "nodes").glob("*/runs/*"))
    assert_nothing_runs(noisy.directory / "nodes")


def test_what_is_lacking_is_provided_there(noisy: Playbooks) -> None:
    """By ansible-core's own ways: a module, and a file that is sent."""
    own = f"{noisy.directory}/made/{{{{ inventory_hostname }}}}/venv"
    for name in NOISE:
        unmarked(noisy.venv, noisy.directory / "made" / name / "venv")
    noisy.variables = {"python_env_dir": own, **one_package(noisy.directory)}
    done = noisy.run("provision", "--tags", "python_env")
    assert done.code == 0, done.output
    for what in (MARK, "lib/python3*/site-packages/small-1.0.dist-info", f"code/*/{MARK}"):
        assert len(list(noisy.directory.glob(f"made/*/venv/{what}"))) == len(NOISE)


@pytest.mark.parametrize("sync", [True, False], ids=["together", "by themselves"])
def test_ctrl_c_stops_them(noisy: Playbooks, sync: bool) -> None:
    noisy.variables = {"benchmark_profile": profile(noisy, samples=5000), "benchmark_sync_start": sync}
    process = noisy.start(noisy.command("benchmark"))
    wait_until("all measure", lambda: len(samples_of(noisy)) == len(NOISE), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    run_dir = (noisy.results / "latest").resolve()
    cluster = json.loads((run_dir / "aggregated_datacenter_results.json").read_text())
    assert cluster["partial"].startswith("Interrupted by Ctrl-C")
    for row in cluster["nodes"]:
        samples = (run_dir / "nodes" / row["node"] / "samples.jsonl").read_text().splitlines()
        assert row["status"] == "interrupted", row
        assert row["metrics"]["queries"]["completed"] == len(samples) > 0
    assert_nothing_runs(noisy.directory / "nodes")
    assert not list((noisy.directory / "nodes").glob("*/runs/*"))


@pytest.mark.parametrize("sync", [True, False], ids=["together", "by themselves"])
def test_a_run_that_is_resumed_finds_what_they_are_at(noisy: Playbooks, sync: bool) -> None:
    noisy.variables = {"benchmark_profile": profile(noisy, samples=200), "benchmark_sync_start": sync}
    inventory = noisy.inventory()
    process = start(noisy, inventory=inventory)
    wait_until("all measure", lambda: len(samples_of(noisy)) == len(NOISE), process)
    process.kill()
    process.wait()
    groups = [int((path.parent / "limit").read_text()) for path in samples_of(noisy)]
    # Whoever comes finds them measuring, however late.
    for group in groups:
        os.killpg(group, signal.SIGSTOP)
    again = start(noisy, "-e", "benchmark_resume=latest", inventory=inventory)
    output = ""
    assert again.stdout is not None
    while output.count("an earlier attempt is still measuring: not run again") < len(NOISE):
        line = again.stdout.readline()
        assert line, output
        output += line
    for group in groups:
        os.killpg(group, signal.SIGCONT)
    output += again.communicate(timeout=200)[0]
    assert again.returncode == 0, output
    cluster = json.loads((noisy.results / "latest" / "aggregated_datacenter_results.json").read_text())
    check_whole(cluster, 200)
    assert {row["attempt"] for row in cluster["nodes"]} == {1}
