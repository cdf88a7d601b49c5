"""Two nodes as one system over real sshd: each serves, one LoadGen asks both, and there is one verdict."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import DATA, REAL, Done, Playbooks
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.ssh_nodes import CHECKOUT, loopback, worker_port

PORT = 8042


def starts(directory: Path, token_ms: float = 1, key: str = "") -> str:
    """Return the command that starts a server which takes so long for a token; the key that it has is kept."""
    keeps = f'echo "$BENCHMARK_SERVE_API_KEY" > {directory}/key-$BENCHMARK_SERVE_ADDRESS'
    other = f"KEY={key} " if key else ""
    served = f"{other}exec {sys.executable} -m tests.one_server {token_ms} {directory}/served"
    return f"{keeps}; cd {shlex.quote(str(CHECKOUT))}; {served}"


def profile(directory: Path, **changes: Any) -> str:
    """Write the fast profile with those changes, for servers."""
    content = yaml.safe_load((DATA / "fast.yaml").read_text())
    # How fast this machine is decides nothing here.
    limits = [limit for limit in content["limits"] if limit["metric"] != "qps"]
    path = directory / "system.yaml"
    served = {"engine": "endpoint", "engine_options": {}, "limits": limits}
    path.write_text(yaml.safe_dump({**content, **served, **changes}))
    return str(path)


@pytest.fixture
def system(playbooks: Playbooks) -> Playbooks:
    """The playbooks with both nodes as one system."""
    playbooks.variables = {
        "benchmark_profile": profile(playbooks.directory),
        "benchmark_system": "cluster",
        "benchmark_endpoint_start": starts(playbooks.directory),
        "benchmark_endpoint_model": "served",
        "benchmark_serve_port": PORT,
    }
    return playbooks


def driver_of(run_dir: Path) -> dict[str, Any]:
    (path,) = (run_dir / "driver").glob("mlperf_datacenter_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def words(text: str) -> str:
    return " ".join(text.split())


def wait_for(what: str, tell: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := tell()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.05)
    return found


def assert_no_key(system: Playbooks, done: Done) -> None:
    """Assert that nothing that is printed or kept holds the key that both servers had."""
    keys = {path.read_text().strip() for path in system.directory.glob("key-*")}
    assert len(keys) == 1
    (key,) = keys
    assert len(key) > 30
    assert key not in done.output
    kept = [path for path in done.run_dir.rglob("*") if path.is_file()]
    assert [path for path in kept if key in path.read_text(errors="replace")] == []


def test_one_loadgen_asks_all_nodes(system: Playbooks) -> None:
    """At the rate that it found for all together, twice."""
    # Long enough for ticks in each window, on a busy machine too.
    offline = {"scenario": "Offline", "min_duration_ms": 300, "min_query_count": 400}
    changes = {"scenario": "loadgen", "scenario_options": offline, "samples": None}
    system.variables["benchmark_profile"] = profile(system.directory, **changes)
    done = system.run("benchmark", "-e", "benchmark_repeats=2", "-e", "benchmark_target_qps=auto")
    assert done.code == 0, done.output
    assert_nothing_runs(system.directory)
    assert_no_key(system, done)
    # One schedule, one log, one verdict.
    logs = [str(path.relative_to(done.run_dir)) for path in done.run_dir.rglob("*mlperf_log_detail.txt")]
    assert sorted(logs) == [f"driver/{of}mlperf_log_detail.txt" for of in ("burst_", "", "repeat2_")]
    cluster, measured = done.cluster, driver_of(done.run_dir)
    assert measured["engine"]["replicas"] == 2
    assert measured["engine"]["details"]["urls"] == [f"http://{loopback(n)}:{PORT}" for n in (2, 3)]
    # What was searched for is the whole system's, and what is to be set is for each GPU.
    peak = measured["peak"]
    assert measured["target_qps"] == peak["target_qps"] == measured["repeats"][0]["loadgen"]["settings"]["target_qps"]
    assert float(peak["host_vars"].removeprefix("benchmark_target_qps: ")) == pytest.approx(
        peak["target_qps"] / 2, rel=1e-3
    )
    assert f"target found; to measure at it again: {peak['host_vars']}" in cluster["system"]["notes"]
    chosen = cluster["repeats"]["chosen"]
    whole = measured if chosen == 1 else measured["repeats"][0]
    # Whether LoadGen finds it valid is this machine's affair; that its word is the cluster's is not.
    assert (cluster["verdict"]["valid"], cluster["verdict"]["reasons"]) == (
        whole["verdict"]["valid"],
        whole["verdict"]["reasons"],
    )
    (group,) = cluster["groups"]
    assert group["nodes"] == ["jw2", "jw3"]
    assert (group["qps"], group["latency_ms"]) == (whole["metrics"]["qps"], whole["metrics"]["latency_ms"])
    assert cluster["system"]["driver"] == "the controller"
    # What each node had of it: fewest in flight first, so that neither has nothing.
    rows = [done.row(name) for name in ("jw2", "jw3")]
    assert sum(row["served"]["share"] for row in rows) == pytest.approx(1)
    assert all(row["served"]["share"] > 0.2 and row["served"]["errors"] == {} for row in rows)
    assert sum(row["metrics"]["queries"]["completed"] for row in rows) == group["queries"]["completed"]
    assert max(row["metrics"]["latency_ms"]["p99"] for row in rows) == group["worst_p99_latency_ms"]
    for name in ("jw2", "jw3"):
        place = done.run_dir / "nodes" / name
        (path,) = place.glob("mlperf_datacenter_*.json")
        served = json.loads(path.read_text())["served"]
        # Each watched in the driver's windows, which one clock tells here.
        for window, of_driver in zip(served, [measured, *measured["repeats"]], strict=True):
            apart_ns = window["window"]["started_unix_ns"] - of_driver["window"]["started_unix_ns"]
            assert abs(apart_ns) < 50_000_000
            assert window["telemetry"]["ticks"] > 1
        assert (place / "repeat2_telemetry.jsonl").is_file()
    summary = words(done.summary)
    assert "System one schedule from the controller over 2 nodes: figures of one system, not a sum" in summary
    assert "the sum over" not in summary
    assert "the sum over" not in (done.run_dir / "report.html").read_text()
    assert "(2 nodes as one system)" in summary


@pytest.mark.timeout(580)
def test_an_engine_without_a_server_is_served(playbooks: Playbooks, full_venv: Path, tiny_model: Path) -> None:
    """Real continuous batching behind our own server: one copy on a node, two on the other."""
    playbooks.venv = full_venv
    path = profile(playbooks.directory, engine="continuous", samples=24, scenario_options={"concurrency": 4})
    playbooks.variables = {
        **REAL,
        "benchmark_profile": path,
        "benchmark_model": str(tiny_model),
        "benchmark_system": "cluster",
        "benchmark_serve_port": PORT,
    }
    hosts = {name: playbooks.cluster.host(name) for name in ("jw2", "jw3")}
    hosts["jw3"]["benchmark_replicas"] = 2
    done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    assert done.code == 0, done.output
    assert_nothing_runs(playbooks.directory)
    assert done.cluster["verdict"]["valid"], done.summary
    measured = driver_of(done.run_dir)
    assert measured["engine"]["replicas"] == 3
    assert measured["engine"]["details"]["refused_fields"] == {"chat": [], "completions": []}
    assert "(continuous)" in measured["engine"]["details"]["server"]
    # Exact lengths; the first token was sent by itself, unless this machine was too busy to read it before the last.
    assert measured["metrics"]["queries"]["completed"] == 24
    assert measured["metrics"]["output_tokens"] == 24 * 8
    assert measured["metrics"]["answers"]["coarse"] == 0
    samples = [json.loads(line) for line in (done.run_dir / "driver" / "samples.jsonl").read_text().splitlines()]
    assert {(one["pieces"], one["first_piece_tokens"]) for one in samples} <= {(1, 8), (2, 1)}
    rows = [done.row(name) for name in ("jw2", "jw3")]
    assert all(row["served"]["share"] > 0 and row["served"]["errors"] == {} for row in rows)
    for name, replicas in (("jw2", 1), ("jw3", 2)):
        (found,) = (done.run_dir / "nodes" / name).glob("mlperf_datacenter_*.json")
        engine = json.loads(found.read_text())["engine"]
        assert (engine["name"], engine["replicas"], engine["details"]["asks_for_key"]) == ("continuous", replicas, True)
    assert "not a sum" in words(done.summary)
    assert "their sum" not in words(done.summary)
    assert "prefix cache: 0 of " in words(done.summary)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_a_server_that_dies_is_named(system: Playbooks) -> None:
    """With the driver on a node, and the server on one that is reached by IPv6."""
    ssh_port, port = worker_port(2300), worker_port(8200)
    jw6 = system.cluster.add("jw6", loopback(6), config=f"ListenAddress [::1]:{ssh_port}\n")
    key = jw6.host_key.with_suffix(".pub").read_text()
    with system.cluster.known_hosts.open("a") as known:
        known.write(f"[::1]:{ssh_port} {key}")
    hosts: dict[str, Any] = {"jw2": system.cluster.host("jw2")}
    hosts["jw6"] = {"ansible_host": "::1", "ansible_port": ssh_port, "benchmark_serve_port": port}
    closed = profile(system.directory, samples=60, scenario_options={"concurrency": 4})
    system.variables |= {"benchmark_profile": closed, "benchmark_driver": "jw2"}
    slow = {"benchmark_endpoint_start": starts(system.directory, token_ms=40)}
    try:
        inventory = system.inventory(hosts)
        process = system.start(system.command("benchmark", "-e", json.dumps(slow), inventory=inventory))
        # Once both have answered, more than before the measurement.
        served = [system.directory / f"served-{host}" for host in (loopback(2), "::1")]
        wait_for("both serve", lambda: all(len(answers(path)) > 12 for path in served), process)
        assert_in_no_process_list(system)
        os.kill(pids_of(served)[1], signal.SIGKILL)
        output, _ = process.communicate(timeout=200)
    finally:
        jw6.stop()
        del system.cluster.nodes["jw6"]
        system.cluster.trust()
    assert process.returncode != 0, output
    done = Done(process.returncode, output, (system.results / "latest").resolve())
    assert driver_of(done.run_dir)["engine"]["details"]["urls"] == [
        f"http://{loopback(2)}:{PORT}",
        f"http://[::1]:{port}",
    ]
    rows = {row["node"]: row for row in done.cluster["nodes"]}
    assert (rows["jw2"]["counted"], rows["jw6"]["counted"]) == (True, False)
    assert "was ended by signal 9" in rows["jw6"]["reason"]
    # What it had been asked failed, and is counted; the others were answered.
    queries = done.cluster["system"]["metrics"]["queries"]
    assert queries["failed"] > 0
    assert queries["completed"] + queries["failed"] == 60
    assert sum(rows["jw6"]["served"]["errors"].values()) == queries["failed"]
    assert rows["jw2"]["served"]["errors"] == {}
    assert not done.cluster["verdict"]["valid"]
    assert "1 of 2 nodes is not counted: jw6." in done.cluster["verdict"]["reasons"]
    assert done.cluster["system"]["driver"] == "jw2"
    # There is one result of all: it is measured anew, or not.
    assert "Measure the whole system again, in this run: " in output
    assert_nothing_runs(system.directory)


def assert_in_no_process_list(system: Playbooks) -> None:
    (key,) = {path.read_text().strip() for path in system.directory.glob("key-*")}
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "tests.one_server" in listed
    assert key not in listed


def answers(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def pids_of(paths: list[Path]) -> list[int]:
    return [int(answers(path)[0]) for path in paths]


def test_ports_that_are_taken_or_not_reached_are_named(system: Playbooks) -> None:
    """Before anything is loaded: jw4 finds its own address under a name that means another machine to the driver."""
    hosts = system.directory / "hosts"
    hosts.write_text(f"{loopback(4)} localhost\n")
    jw4 = system.cluster.add("jw4", loopback(4), before=f"mount --bind {hosts} /etc/hosts")
    try:
        entries = {
            "jw2": system.cluster.host("jw2"),
            "jw3": system.cluster.host("jw3"),
            "jw4": {**system.cluster.host("jw4"), "benchmark_serve_address": "localhost"},
        }
        with socket.create_server((loopback(3), PORT)):
            done = system.run("benchmark", "-e", "benchmark_min_nodes=2", inventory=system.inventory(entries))
    finally:
        jw4.stop()
        del system.cluster.nodes["jw4"]
        system.cluster.trust()
    assert done.code != 0
    taken = (
        rf"No server can listen on {loopback(3)} port {PORT}: process {os.getpid()} \([^)]+\) listens there: end it,"
    )
    assert re.search(taken, words(done.row("jw3")["reason"]))
    refused = f"cannot reach localhost port {PORT}: connection refused. Nothing was loaded"
    assert f"The driver (the controller) {refused}" in words(done.row("jw4")["reason"])
    (_, reason) = words(done.row("jw2")["reason"]).split("benchmark: ")
    assert reason.startswith("Nothing was measured: without jw3, jw4 too few nodes serve")
    assert list(system.directory.glob("served-*")) == [], "no server was started"
    assert_nothing_runs(system.directory)
    assert done.cluster["groups"] == []
    assert not done.cluster["verdict"]["valid"]


def test_nothing_is_started_without_the_drivers_node(system: Playbooks) -> None:
    nobody = {"ansible_host": loopback(99)}
    inventory = system.inventory({"jw2": nobody, "jw3": system.cluster.host("jw3")})
    done = system.run("benchmark", "-e", "benchmark_driver=jw2", inventory=inventory)
    assert done.code != 0
    assert "Nothing answers SSH at" in done.row("jw2")["reason"]
    why = "Nothing was measured: the driver's node, jw2, failed before."
    assert why in words(done.row("jw3")["reason"])
    assert done.cluster["system"]["reasons"] == [why]
    assert "System nothing was measured; the driver would have been jw2" in words(done.summary)
    assert done.recap("jw3")["failed"] == 1
    assert not (system.directory / "nodes" / "jw3" / "runs").exists()
    assert_nothing_runs(system.directory)


def test_a_server_with_another_key_is_named(system: Playbooks) -> None:
    """The others go on; and what of the driver limits them is named: its node lets it open few connections."""
    path = profile(system.directory, samples=120, scenario_options={"concurrency": 60})
    system.variables |= {"benchmark_profile": path, "benchmark_driver": "jw4", "benchmark_min_nodes": 2}
    jw4 = system.cluster.add("jw4", loopback(4), before="ulimit -n 100")
    hosts = {name: system.cluster.host(name) for name in ("jw2", "jw3", "jw4")}
    hosts["jw3"]["benchmark_endpoint_start"] = starts(system.directory, key="another")
    try:
        done = system.run("benchmark", "-vvvv", inventory=system.inventory(hosts))
    finally:
        jw4.stop()
        del system.cluster.nodes["jw4"]
        system.cluster.trust()
    assert done.code != 0
    assert_nothing_runs(system.directory)
    # Nor is it in anything that Ansible says of its own work.
    assert_no_key(system, done)
    reason = words(done.row("jw3")["reason"])
    assert f"http://{loopback(3)}:{PORT}/v1/models: HTTP 401" in reason
    assert "Make it require the run's key, $BENCHMARK_SERVE_API_KEY, and accept no other." in reason
    assert [done.row(name)["counted"] for name in ("jw2", "jw3", "jw4")] == [True, False, True]
    assert done.cluster["system"]["servers"] == 2
    assert done.cluster["system"]["metrics"]["queries"]["completed"] == 120
    (limit,) = [note for note in done.cluster["system"]["notes"] if "connections" in note]
    assert re.search(r"^\d+ queries waited in the driver for one of its \d+ connections: raise its limit", limit)


def test_ctrl_c_ends_the_driver_and_all_servers(system: Playbooks) -> None:
    """And the run is resumed: what a system had not measured whole, it measures again; then beside two single runs."""
    system.variables["benchmark_profile"] = profile(system.directory, samples=40, scenario_options={"concurrency": 2})
    flag = system.directory / "slowly"
    flag.write_text("")
    quick, slow = starts(system.directory), starts(system.directory, token_ms=200)
    system.variables["benchmark_endpoint_start"] = f"if [ -e {flag} ]; then {slow}; else {quick}; fi"
    process = system.start(system.command("benchmark"))
    served = [system.directory / f"served-{loopback(n)}" for n in (2, 3)]
    wait_for("both serve", lambda: all(len(answers(path)) > 8 for path in served), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert_nothing_runs(system.directory)
    assert "PARTIAL" in output
    flag.unlink()
    done = system.run("benchmark", "-e", "benchmark_resume=latest")
    assert done.code == 0, done.output
    assert done.cluster["verdict"]["valid"], done.summary
    assert done.cluster["system"]["metrics"]["queries"]["completed"] == 40
    assert (done.run_dir / "driver" / "attempt-1").is_dir()
    assert_nothing_runs(system.directory)

    # The same nodes, each by itself: there it is a sum, of two measurements, and says so.
    (group,) = done.cluster["groups"]
    alone = [
        "-e",
        "benchmark_system=node",
        "-e",
        json.dumps(
            {
                "benchmark_endpoint_start": f"export BENCHMARK_SERVE_API_KEY= BENCHMARK_SERVE_PORT={PORT}; "
                f"export BENCHMARK_SERVE_ADDRESS={{{{ ansible_host }}}}; {starts(system.directory)}",
                "benchmark_endpoint_urls": [f"http://{{{{ ansible_host }}}}:{PORT}"],
            }
        ),
    ]
    apart = system.run("benchmark", *alone)
    assert apart.code == 0, apart.output
    assert "(the sum over 2 nodes: a fleet figure)" in words(apart.summary)
    (together,) = apart.cluster["groups"]
    assert (group["queries"]["completed"], together["queries"]["completed"]) == (40, 2 * 40)
    assert together["key"] != group["key"], "the two are never held against each other, nor added"
