"""Ctrl-C, SIGTERM and worse at the controller, while the nodes measure."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.integration.conftest import DATA, Playbooks, unmarked
from tests.integration.faults.left_over import assert_nothing_runs, processes_of


@pytest.fixture
def long_run(playbooks: Playbooks) -> Playbooks:
    """Nodes that would measure for minutes."""
    profile = {**yaml.safe_load((DATA / "fast.yaml").read_text()), "samples": 5000}
    path = playbooks.directory / "long.yaml"
    path.write_text(yaml.safe_dump(profile))
    playbooks.variables["benchmark_profile"] = str(path)
    return playbooks


def wait_until(what: str, tell: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not tell():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)


def samples_of(playbooks: Playbooks) -> list[Path]:
    """Return the files of samples on the nodes that have a sample in them."""
    return [path for path in (playbooks.directory / "nodes").glob("*/runs/*/*/samples.jsonl") if path.stat().st_size]


def end_of(process: subprocess.Popen[str]) -> str:
    """Return what the process printed, once it has ended."""
    output, _ = process.communicate(timeout=200)
    return output


def check_partial(playbooks: Playbooks, output: str, by: str) -> None:
    """Assert that both nodes were stopped, fetched and cleaned, and that the summary says so."""
    run_dir = (playbooks.results / "latest").resolve()
    cluster = json.loads((run_dir / "aggregated_datacenter_results.json").read_text())
    assert cluster["partial"].startswith(f"Interrupted by {by}")
    assert not cluster["verdict"]["valid"]
    for row in cluster["nodes"]:
        samples = (run_dir / "nodes" / row["node"] / "samples.jsonl").read_text().splitlines()
        assert row["status"] == "interrupted"
        assert row["metrics"]["queries"]["completed"] == len(samples) > 0
        assert f"Interrupted by {by}: it was stopped, and what it had measured was fetched" in row["reason"]
    summary = (run_dir / "benchmark_summary.txt").read_text()
    assert f"*** PARTIAL. Interrupted by {by}" in summary
    why = cluster["partial"]
    assert (" ".join(summary.replace("***", "").split())).count(why) == 1, "it is said once"
    assert "The run was stopped by" not in summary, "nor in the words of the node"
    assert "PARTIAL." in output, "the summary is shown"
    assert f"All runs: {playbooks.results}/index.html\n" in output
    assert (
        f"The same in this terminal: python3 -m benchmark list --results-dir {playbooks.results}\nResume it: " in output
    )
    assert ">partial</span>" in (playbooks.results / "index.html").read_text()
    assert f" -e benchmark_resume={run_dir.name}\n" in output
    assert_nothing_runs(playbooks.directory)
    left = list((playbooks.directory / "nodes").glob("*/runs/*"))
    assert not left, "what was fetched is not left behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_nodes_are_stopped_and_summarised(long_run: Playbooks, number: signal.Signals) -> None:
    long_run.variables["benchmark_notify"] = f"tee {long_run.directory}/notified.json"
    process = long_run.start(long_run.command("benchmark"))
    wait_until("both nodes measure", lambda: len(samples_of(long_run)) == 2, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal's Ctrl-C goes to all of its foreground
    else:
        process.send_signal(number)
    output = end_of(process)
    assert process.returncode == 2, output
    check_partial(long_run, output, "Ctrl-C" if number == signal.SIGINT else "SIGTERM")
    assert json.loads((long_run.directory / "notified.json").read_text())["outcome"] == "partial"


def test_ci_hands_it_on_and_reports_what_there_is(long_run: Playbooks, tmp_path: Path) -> None:
    junit, page = tmp_path / "junit.xml", tmp_path / "page.md"
    words = ["--inventory", str(long_run.inventory()), "--junit", str(junit), "--markdown", str(page)]
    process = long_run.start([sys.executable, "-m", "benchmark", "ci", *words])
    wait_until("both nodes measure", lambda: len(samples_of(long_run)) == 2, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)  # as GitHub's runner does to a job that is cancelled: no impatience yet
    output = end_of(process)
    assert process.returncode == 4, output
    check_partial(long_run, output, "Ctrl-C")
    assert page.read_text().startswith("## LLM inference benchmark: PARTIAL\n")
    errors = {str(error.get("type")) for error in ElementTree.parse(junit).iter("error")}
    assert errors == {"interrupted", "partial"}


def test_before_anything_is_measured_nothing_is_left(long_run: Playbooks) -> None:
    slow = yaml.safe_load((long_run.directory / "long.yaml").read_text())
    slow["engine_options"]["load_s"] = 300
    (long_run.directory / "long.yaml").write_text(yaml.safe_dump(slow))
    process = long_run.start(long_run.command("benchmark"))
    orders = long_run.directory / "nodes"

    def loading() -> bool:
        written = [path.read_text() for path in orders.glob("*/runs/*/*/progress.json")]
        return ["loading" in each for each in written] == [True, True]

    wait_until("the nodes load", loading, process)
    os.killpg(process.pid, signal.SIGINT)
    output = end_of(process)
    assert process.returncode == 2, output
    cluster = json.loads((long_run.results / "latest" / "aggregated_datacenter_results.json").read_text())
    assert [row["status"] for row in cluster["nodes"]] == ["interrupted", "interrupted"]
    assert "Interrupted while loading" in cluster["nodes"][0]["reason"]
    assert_nothing_runs(long_run.directory)


def test_an_installation_ends_with_its_playbook(playbooks: Playbooks) -> None:
    # Made already, so that pip is at work at once; of other pins, so that it is; and its index never says a word.
    ready_made = unmarked(playbooks.venv, playbooks.directory / "nodes" / "jw2" / "venv")
    pins = playbooks.directory / "pins.txt"
    pins.write_text("no-such-package==1.0\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = {"PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple", "PIP_DEFAULT_TIMEOUT": "600"}
        inventory = playbooks.inventory(
            {"jw2": playbooks.cluster.host("jw2")},
            python_env_dir=str(ready_made),
            python_env_requirements=str(pins),
            node_environment={**index, "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1"},
        )
        process = playbooks.start(playbooks.command("benchmark", inventory=inventory))
        wait_until("pip asks its index", lambda: select.select([silent], [], [], 0)[0], process)
        assert any(" pip install" in command for command in processes_of(ready_made).values())
        os.killpg(process.pid, signal.SIGINT)
        output = end_of(process)
    assert process.returncode == 2, output
    cluster = json.loads((playbooks.results / "latest" / "aggregated_datacenter_results.json").read_text())
    assert cluster["nodes"][0]["reason"] == "python_env: Interrupted by Ctrl-C before it measured."
    assert cluster["partial"]
    assert_nothing_runs(playbooks.directory)


def test_twice_aborts_at_once_and_the_nodes_end_by_themselves(long_run: Playbooks) -> None:
    # The limit of nodes that begin together has room for what they wait for each other.
    long_run.variables |= {"benchmark_timeout_s": 12, "benchmark_sync_start": False}
    process = long_run.start(long_run.command("benchmark"))
    wait_until("both nodes measure", lambda: len(samples_of(long_run)) == 2, process)
    # The second one comes while the first is at work: nodes that do not stop would keep it for ten seconds.
    for pid in (int((path.parent / "limit").read_text()) for path in samples_of(long_run)):
        os.kill(pid, signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    output = end_of(process)
    assert process.returncode == 99, output  # ansible-core's own
    assert "PLAY RECAP" not in output
    kept = samples_of(long_run)
    assert len(kept) == 2, "what was measured stays on the nodes"
    for pid in (int((path.parent / "limit").read_text()) for path in kept):
        os.kill(pid, signal.SIGCONT)
    assert_nothing_runs(long_run.directory)
