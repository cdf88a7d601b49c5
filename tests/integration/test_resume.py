"""Resuming a run over real SSH: only what is missing is done, and nothing that was measured is lost or done twice."""

import getpass
import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import yaml

from tests.integration.conftest import DATA, Done, Playbooks
from tests.integration.ssh_nodes import loopback
from tests.integration.test_benchmark import measuring_pid, start, wait_until
from tests.processes import assert_ended

LONG = {"samples": 60, "engine_options": {"ttft_ms": 30, "tpot_ms": 1}}


def profile(directory: Path, name: str, **changes: Any) -> str:
    content = {**yaml.safe_load((DATA / "fast.yaml").read_text()), **changes}
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def attempts(done: Done) -> dict[str, int]:
    return {row["node"]: row["attempt"] for row in done.cluster["nodes"]}


def runs_left(playbooks: Playbooks, node: str) -> list[Path]:
    return list((playbooks.directory / "nodes" / node / "runs").iterdir())


def test_only_the_node_that_failed_is_measured_again(playbooks: Playbooks) -> None:
    long = f"benchmark_profile={profile(playbooks.directory, 'long', **LONG)}"
    process = start(playbooks, "-e", long)
    os.kill(wait_until("jw2 measures", lambda: measuring_pid(playbooks, "jw2"), process), signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0, output
    run_dir = (playbooks.results / "latest").resolve()
    report, page, here, again = output.rstrip("\n").splitlines()[-4:]
    assert report == f"Report: {run_dir}/report.html"
    assert page == f"All runs: {playbooks.results}/index.html"
    assert here.endswith(f" list --results-dir {playbooks.results}")
    assert f">{run_dir.name}<" in (playbooks.results / "index.html").read_text()
    line = rf"Measure jw2 again, in this run: ansible-playbook .*/benchmark\.yml.* -e benchmark_resume={run_dir.name}"
    assert re.fullmatch(line, again)
    broken = (run_dir / "nodes" / "jw2" / "samples.jsonl").read_text()
    before = (run_dir / "run.json").read_text()

    nobody = {node: playbooks.cluster.host(node, loopback(99)) for node in ("jw2", "jw3")}
    words = ["-e", "benchmark_resume=latest", "-e", "benchmark_target_qps=3", "-e", "benchmark_dtype=bfloat16"]
    refused = playbooks.run("benchmark", *words, inventory=playbooks.inventory(nobody))
    assert refused.code != 0
    said = " ".join(refused.output.split())
    assert "benchmark_target_qps is 3.0; the run was made with 0.5. [jw2, jw3]" in said
    assert "benchmark_dtype is 'bfloat16'; the run was made with 'float32'. [jw2, jw3]" in said
    assert "Not reachable" not in refused.output
    assert (run_dir / "run.json").read_text() == before

    # jw3 is complete: at an address where nobody answers, whoever asks it fails. jw9 is not asked, by --limit.
    hosts = {"jw2": playbooks.cluster.host("jw2"), "jw3": nobody["jw3"], "jw9": nobody["jw3"]}
    words = ["-e", "benchmark_resume=latest", "-e", "benchmark_fail_on_invalid=true", "--limit", "jw2,jw3"]
    done = playbooks.run("benchmark", *words, inventory=playbooks.inventory(hosts))
    assert done.code == 0, done.output
    assert done.run_dir == run_dir
    assert f"Resuming the run {run_dir.name}: 1 node to measure, 1 node complete" in done.output
    assert attempts(done) == {"jw2": 2, "jw3": 1}
    assert done.cluster["counted"] == 2
    assert "never all at once" in done.summary
    aside = run_dir / "nodes" / "jw2" / "attempt-1"
    assert (aside / "samples.jsonl").read_text() == broken
    assert "killed (SIGKILL)" in json.loads((aside / "failure.json").read_text())["reason"]
    assert not (run_dir / "nodes" / "jw2" / "failure.json").exists()
    history = json.loads((run_dir / "run.json").read_text())["attempts"]
    assert [sorted(one["nodes"]) for one in history] == [["jw2", "jw3"], ["jw2"]]
    assert "benchmark_resume=latest" in history[1]["command"]

    nothing = playbooks.run("benchmark", "-e", "benchmark_resume=latest", inventory=playbooks.inventory(nobody))
    assert nothing.code == 0, nothing.output
    assert "no nodes to measure, 2 nodes complete" in nothing.output
    assert len(json.loads((run_dir / "run.json").read_text())["attempts"]) == 2


def test_what_nodes_did_after_the_controller_died_is_fetched(playbooks: Playbooks) -> None:
    hosts = {
        node: {**playbooks.cluster.host(node), "benchmark_profile": profile(playbooks.directory, node, samples=samples)}
        for node, samples in (("jw2", 20), ("jw3", 60))
    }
    inventory = playbooks.inventory(hosts)
    process = start(playbooks, inventory=inventory)
    pid = wait_until("jw3 measures", lambda: measuring_pid(playbooks, "jw3"), process)
    process.kill()
    process.wait()
    os.kill(pid, signal.SIGSTOP)
    (opened,) = json.loads((playbooks.results / "latest" / "run.json").read_text())["attempts"]
    assert opened["controller"]["pid"] == process.pid, "who resumes while it is there is refused"
    assert_left_alone_by_another_controller(playbooks, inventory)
    again = start(playbooks, "-e", "benchmark_resume=latest", inventory=inventory)
    output = ""
    assert again.stdout is not None
    while "jw3: an earlier attempt is still measuring" not in output:
        line = again.stdout.readline()
        assert line, output
        output += line
    os.kill(pid, signal.SIGCONT)
    output += again.communicate(timeout=200)[0]
    assert again.returncode == 0, output
    done = Done(again.returncode, output, (playbooks.results / "latest").resolve())
    assert "jw2: an earlier attempt" in done.output
    assert attempts(done) == {"jw2": 1, "jw3": 1}
    assert done.cluster["overlap"]["together_s"] > 0
    assert done.cluster["overlap"]["uncertainty_ms"] > 0, "the clocks that were measured then are not lost"
    assert done.cluster["verdict"]["valid"], done.summary
    assert not runs_left(playbooks, "jw2")
    assert not runs_left(playbooks, "jw3")


def assert_left_alone_by_another_controller(playbooks: Playbooks, inventory: Path) -> None:
    """Resume a run of the same id that another controller has opened."""
    theirs = playbooks.directory / "theirs"
    shutil.copytree(playbooks.results, theirs, symlinks=True)
    path = theirs / "latest" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "token": "0" * 32}))
    words = ["-e", "benchmark_resume=latest", "-e", f"benchmark_results_dir={theirs}"]
    refused = playbooks.run("benchmark", *words, inventory=inventory)
    assert refused.code != 0
    whose = f"is a run of {getpass.getuser()} on {socket.gethostname()}: it was left alone."
    for node in ("jw2", "jw3"):
        failure = json.loads((theirs / "latest" / "nodes" / node / "failure.json").read_text())
        assert whose in failure["reason"]


def test_a_node_that_waits_for_no_start_is_started_again(playbooks: Playbooks) -> None:
    hosts = {
        node: {
            **playbooks.cluster.host(node),
            "benchmark_profile": profile(
                playbooks.directory, node, samples=30, engine_options={"ttft_ms": 20, "tpot_ms": 5, "load_s": load_s}
            ),
        }
        for node, load_s in (("jw2", 0), ("jw3", 5))
    }
    inventory = playbooks.inventory(hosts)
    process = start(playbooks, inventory=inventory)
    runs = playbooks.directory / "nodes" / "jw2" / "runs"
    (ready,) = wait_until("jw2 is ready", lambda: list(runs.glob("*/jw2/ready")), process)
    pid = int((ready.parent / "pid").read_text())
    process.kill()
    process.wait()
    done = playbooks.run("benchmark", "-e", "benchmark_resume=latest", inventory=inventory)
    assert done.code == 0, done.output
    assert "jw2: an earlier attempt is waiting for a start that will not come" in done.output
    assert_ended(int(pid))
    assert attempts(done) == {"jw2": 2, "jw3": 2}
    assert done.cluster["verdict"]["valid"], done.summary
    log = done.run_dir / "nodes" / "jw2" / "attempt-1" / "benchmark.log"
    assert "ready, waiting for the others" in log.read_text()


def test_a_limited_run_is_resumed_without_the_others(playbooks: Playbooks) -> None:
    down = playbooks.inventory(
        {"jw2": playbooks.cluster.host("jw2", loopback(99)), "jw3": playbooks.cluster.host("jw3")}
    )
    assert playbooks.run("benchmark", "--limit", "jw2", inventory=down).code != 0
    # Whoever asks jw3 fails.
    hosts = {"jw2": playbooks.cluster.host("jw2"), "jw3": playbooks.cluster.host("jw3", loopback(99))}
    done = playbooks.run("benchmark", "-e", "benchmark_resume=latest", inventory=playbooks.inventory(hosts))
    assert done.code == 0, done.output
    assert "Left out by --limit when the run was opened, and still left out: jw3. To add a node, name" in done.output
    assert [row["node"] for row in done.cluster["nodes"]] == ["jw2"]
    assert done.row("jw2")["counted"]
    assert "jw3" not in json.loads((done.run_dir / "run.json").read_text())["nodes"]


def test_a_new_node_is_added_and_waits_for_nobody(playbooks: Playbooks) -> None:
    hosts = {"jw2": playbooks.cluster.host("jw2", loopback(99))}
    down = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    assert down.code != 0
    assert "0 of 1" in down.summary, "a summary there is also where no node was reached"
    hosts["jw3"] = playbooks.cluster.host("jw3")
    words = ["-e", "benchmark_resume=latest", "--limit", "jw3"]
    done = playbooks.run("benchmark", *words, inventory=playbooks.inventory(hosts))
    assert done.code == 0, done.output
    assert "New to the run, measured and added to it: jw3." in done.output
    assert "not in this play (--limit): jw2." in done.output
    assert "waiting for the others" not in done.output
    assert (done.row("jw2")["counted"], done.row("jw3")["counted"]) == (False, True)
    assert attempts(done) == {"jw2": None, "jw3": 2}
