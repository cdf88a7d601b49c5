"""The real playbook against real SSH nodes called jw2 and jw3."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.integration.conftest import DATA, LIGHT, Done, Playbooks
from tests.integration.ssh_nodes import CHECKOUT, loopback


def profile(directory: Path, **changes: Any) -> Path:
    """Write a variant of the fast profile."""
    content = {**yaml.safe_load((DATA / "fast.yaml").read_text()), **changes}
    path = directory / "variant.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_complete_run_with_a_third_node_in_the_inventory(playbooks: Playbooks) -> None:
    # Long enough for all nodes to measure together, however late the last one starts.
    words = [
        "-e",
        f"benchmark_profile={profile(playbooks.directory, samples=100)}",
        "-e",
        "benchmark_fail_on_invalid=true",
    ]
    third = playbooks.cluster.add("jw4", loopback(4))
    try:
        done = playbooks.run("benchmark", *words)
    finally:
        third.stop()
        del playbooks.cluster.nodes["jw4"]
    assert done.code == 0, done.output
    cluster = done.cluster
    assert (cluster["asked"], cluster["counted"]) == (3, 3)
    assert [row["node"] for row in cluster["nodes"]] == ["jw2", "jw3", "jw4"]
    assert "Ensure that vLLM is there" not in done.output  # no worker is spent on what is not asked for
    assert cluster["verdict"]["valid"]
    assert cluster["overlap"]["together_s"] > 0
    assert "unverified, not an MLCommons submission" in done.summary
    assert all(len(line) <= 80 for line in done.summary.splitlines())
    for line in done.summary.splitlines():
        assert line.strip() in done.output  # the summary is what the playbook ends by showing
    for node in ("jw2", "jw3", "jw4"):
        files = sorted(path.name.split("_2")[0] for path in (done.run_dir / "nodes" / node).iterdir())
        prefix = f"mlperf_datacenter_{node}"
        assert files == [
            "benchmark.log",
            prefix,
            prefix,
            "order.json",
            "ready.json",
            "samples.jsonl",
            "telemetry.jsonl",
        ]
        assert f"{node}: measuring" in done.output
        assert done.recap(node)["changed"] == 1, "what was measured"
        assert not list((playbooks.directory / "nodes" / node / "runs").iterdir()), (
            "what was fetched is not left behind"
        )
    assert json.loads((done.run_dir / "run.json").read_text())["hosts"] == {
        "jw2": loopback(2),
        "jw3": loopback(3),
        "jw4": loopback(4),
    }


def test_provisioning_again_changes_nothing(playbooks: Playbooks, tmp_path: Path) -> None:
    again = playbooks.run("provision")
    assert again.code == 0, again.output
    assert (again.recap("jw2")["changed"], again.recap("jw3")["changed"]) == (0, 0)
    assert again.recap("jw2")["ok"] == again.recap("jw3")["ok"], "what was done once is no work on a node"
    last = again.output.rstrip("\n").splitlines()[-1]
    assert last.startswith("Both nodes are provisioned. Next: ansible-playbook playbooks/benchmark.yml -i ")
    assert min(again.recap("jw2")["ok"], again.recap("jw3")["ok"]) >= 3, "what the probe found needs no task of its own"
    rows = {line.split()[0]: line.split() for line in again.output.splitlines() if " GB " in line}
    assert [rows[node][-1] for node in ("jw2", "jw3")] == ["same", "same"], "one machine, one clock"
    changed = tmp_path / "requirements.txt"
    changed.write_text((CHECKOUT / LIGHT).read_text() + "# a changed pin\n")
    checked = playbooks.run("provision", "--check", "-e", f"python_env_requirements={changed}")
    assert checked.code == 0, checked.output
    assert (checked.recap("jw2")["changed"], checked.recap("jw3")["changed"]) == (1, 1)
    assert f"jw3: would make or update the environment {playbooks.venv}: " in checked.output
    assert "pinned packages and what they need, up to 0.1 GB of disk (python_env_min_free_gb)" in checked.output


def test_check_mode_touches_nothing(playbooks: Playbooks) -> None:
    done = playbooks.run("benchmark", "--check", "-e", f"benchmark_notify='touch {playbooks.directory}/notified'")
    assert done.code == 0, done.output
    assert "2 nodes: would measure, each for 120 s at most in " in done.output
    assert (done.recap("jw2")["changed"], done.recap("jw3")["changed"]) == (1, 1), done.output
    assert not playbooks.results.exists()
    assert not (playbooks.directory / "notified").exists()
    assert not (playbooks.directory / "nodes").exists()


def test_what_one_node_lacks_costs_the_others_nothing(playbooks: Playbooks) -> None:
    hosts = {
        "jw2": {**playbooks.cluster.host("jw2"), "benchmark_model": "/no/such/model"},
        "jw3": playbooks.cluster.host("jw3"),
        "down": playbooks.cluster.host("jw3", loopback(99)),
    }
    done = playbooks.run("benchmark", "-e", "benchmark_fail_on_invalid=true", inventory=playbooks.inventory(hosts))
    assert done.code == 2, done.output
    assert done.row("jw3")["counted"], done.output
    assert done.recap("jw3")["failed"] == int(not done.row("jw3")["verdict"]["valid"]), "only for what is its own"
    assert [done.recap(name)["failed"] for name in ("jw2", "down", "cluster")] == [1, 1, 1]
    assert done.row("jw2")["reason"].startswith("preflight: The model directory /no/such/model does not exist")
    assert done.row("down")["reason"].startswith("preflight: Not reachable: Nothing answers SSH at")
    tasks = done.output.split("TASK [")
    (own,) = [text for text in tasks if text.startswith("preflight : ") and "fatal: " in text]
    assert "fatal: [down]" in own
    assert "fatal: [jw2]" in own
    assert "[jw3]" not in own, "no worker of its own"
    assert not [text for text in tasks if text.startswith("python_env : Install")]


BAD_SETTINGS = {
    ("benchmark_profile", "quack"): "is not a profile: did you mean quick?",
    ("benchmark_target_qps", "fast"): "benchmark_target_qps is 'fast'",
    ("benchmark_target_qps", "0"): "benchmark_target_qps is '0': a number greater than 0, or auto, is needed",
    ("benchmark_device", "tpu"): "benchmark_device is 'tpu'",
    ("benchmark_timeout_s", "-5"): "benchmark_timeout_s is '-5'",
    ("benchmark_modell", "x/y"): "did you mean benchmark_model?",
    ("benchmark_model", "llama"): "neither a hub id",
    ("hf_cache_source", "usb"): "hf_cache_source is 'usb'",
}
# As -e gives them, to all nodes.
ON_THE_LINE = {
    ("benchmark_dtype", "float8"): "benchmark_dtype is 'float8'",
    ("benchmark_repeats", "none"): "benchmark_repeats is 'none'",
    ("python_env_pyhton", "x"): "did you mean python_env_python?",
    ("benchmark_prometheus_dir", "/no/such/place"): (
        "benchmark_prometheus_dir: there is no directory /no/such/place on the controller."
    ),
    ("python_env_torch_index_url", "https://me:quiet@index/whl"): (
        "a password in a URL would be kept and shown: pip takes it from ~/.netrc on the node"
    ),
    # Text, however much it looks like JSON: ansible-core would warn, and go on without any of it.
    ("node_environment", """'{"HTTPS_PROXY": "http://proxy"}'"""): (
        "node_environment must be a dictionary of names and values; after -e only JSON gives one"
    ),
}


def test_bad_settings_of_every_kind_are_refused_at_once(playbooks: Playbooks) -> None:
    """Of nodes, of the command line, of the connection, of the controller: one kind of fault does not hide another."""
    # Addresses where nothing listens: who asks them would fail otherwise.
    hosts = {
        f"jw{number}": {**playbooks.cluster.host("jw2", loopback(99)), name: value}
        for number, (name, value) in enumerate(BAD_SETTINGS)
    }
    hosts["nobody"] = {**playbooks.cluster.host("jw3", loopback(98)), "ansible_user": "{{ nobody }}"}
    said = (
        *BAD_SETTINGS.values(),
        *ON_THE_LINE.values(),
        "nobody: ansible_user has no value: 'nobody' is undefined.",
    )
    words = [word for name, value in ON_THE_LINE for word in ("-e", f"{name}={value}")]
    done = refuse(playbooks, playbooks.inventory(hosts), *said, words=words)
    assert {done.recap(name)["failed"] for name in hosts} == {1}, "none was measured"
    assert "quiet" not in done.output


def refuse(playbooks: Playbooks, inventory: Path, *said: str, words: Sequence[str] = ()) -> Done:
    """Assert that the playbook refuses what was asked, says all that, and asks no node."""
    done = playbooks.run("benchmark", *words, inventory=inventory)
    assert done.code != 0
    reported = " ".join(done.output.split())
    assert [one for one in said if one not in reported] == []
    assert "Not reachable" not in done.output
    assert not playbooks.results.exists()
    return done


def test_an_empty_group_is_refused(playbooks: Playbooks) -> None:
    done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts={}))
    assert done.code != 0
    assert "The group gpu_nodes is empty" in done.output


def test_an_unfit_node_tells_all_its_problems(playbooks: Playbooks) -> None:
    inventory = playbooks.inventory(
        benchmark_device="cuda", python_env_dir=str(playbooks.directory / "new"), python_env_min_free_gb=1e7
    )
    done = playbooks.run("preflight", inventory=inventory, PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    assert done.code != 0
    assert "GB free, 10000000.0 GB are needed" in " ".join(done.output.split())
    assert "No GPU is visible" in done.output


def wait_until(what: str, tell: Any, process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if found := tell():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came: {what}")


def start(playbooks: Playbooks, *words: str, inventory: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        playbooks.command("benchmark", *words, inventory=inventory),
        cwd=CHECKOUT,
        env=playbooks.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def measuring_pid(playbooks: Playbooks, node: str) -> int | None:
    """Return the pid of the node's benchmark once it has a sample."""
    for samples in (playbooks.directory / "nodes" / node / "runs").glob(f"*/{node}/samples.jsonl"):
        if samples.stat().st_size:
            shell = int((samples.parent / "pid").read_text())
            timeout = subprocess.run(["pgrep", "-P", str(shell)], capture_output=True, text=True, check=True)
            python = subprocess.run(["pgrep", "-P", timeout.stdout.strip()], capture_output=True, text=True, check=True)
            return int(python.stdout)
    return None


def test_an_invalid_verdict_fails_the_playbook(playbooks: Playbooks) -> None:
    """And an old result is never taken for new."""
    words = ["--limit", "jw2", "-e", "benchmark_target_qps=100000"]
    done = playbooks.run("benchmark", *words, "-e", "benchmark_fail_on_invalid=true")
    assert done.code != 0
    assert "INVALID" in done.summary
    assert done.recap("jw2")["failed"] == 1
    assert [(row["node"], row["status"]) for row in done.cluster["nodes"]] == [("jw2", "complete")]
    collected = playbooks.directory / "textfiles"
    collected.mkdir()
    lenient = playbooks.run("benchmark", *words, "-e", f"benchmark_prometheus_dir={collected}")
    assert lenient.code == 0, lenient.output
    assert f'run_id="{lenient.run_dir.name}"' in (collected / "llm_benchmark.prom").read_text()
    assert "INVALID" in lenient.summary
    report = playbooks.run("report", "-e", f"run={done.run_dir}")
    assert report.code != 0
    assert "INVALID" in report.output

    # The same node again, but it cannot start: nothing new can come back.
    stale = lenient.run_dir / "nodes" / "jw2"
    done = playbooks.run("benchmark", *words, "-e", "benchmark_work_dir=/proc/no")
    assert done.code != 0
    assert done.run_dir != lenient.run_dir
    assert not done.row("jw2")["counted"]
    # And a foreign result laid into the run's directory is refused by name.
    for path in stale.glob("mlperf_datacenter_*"):
        shutil.copy(path, done.run_dir / "nodes" / "jw2")
    # By its id: found where the inventory has runs kept.
    report = playbooks.run("report", "-e", f"run={done.run_dir.name}", "-e", "benchmark_fail_on_invalid=true")
    assert report.code != 0
    assert done.row("jw2")["status"] == "refused"
    assert f"it belongs to the run {lenient.run_dir.name}" in " ".join(done.summary.split())
