"""`python3 -m benchmark ci` and playbooks/trust.yml against real SSH nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pexpect
import yaml

from tests.integration.conftest import BIN, DATA, Playbooks
from tests.integration.ssh_nodes import CHECKOUT, SshNode, keygen

TOKEN = "hf_" + "ThisMustBeNowhere" * 2


def run_ci(playbooks: Playbooks, inventory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a CI system does: no activated environment, no terminal, host key checking not asked for."""
    environment = playbooks.environment(ANSIBLE_HOST_KEY_CHECKING="False", HF_TOKEN=TOKEN)
    environment["PATH"] = environment["PATH"].replace(f"{BIN}:", "", 1)
    command = [sys.executable, "-m", "benchmark", "ci", "--inventory", str(inventory), *words]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def cases(path: Path, suite: str) -> dict[str, str]:
    """Return what became of each case of a suite: passed, failure or error, with its message."""
    root = ElementTree.parse(path).getroot()
    (found,) = [one for one in root if one.get("name") == suite]
    reported = {}
    for case in found.iter("testcase"):
        bad = [one for one in case if one.tag in ("failure", "error")]
        reported[str(case.get("name"))] = f"{bad[0].tag} {bad[0].get('message')}" if bad else "passed"
    return reported


def test_a_valid_run_is_0_and_keeps_no_secret(playbooks: Playbooks, tmp_path: Path) -> None:
    # Long enough for both nodes to measure together, however late the second one starts.
    profile = tmp_path / "long.yaml"
    profile.write_text(yaml.safe_dump({**yaml.safe_load((DATA / "fast.yaml").read_text()), "samples": 100}))
    junit, page, artifacts = tmp_path / "reports" / "junit.xml", tmp_path / "page.md", tmp_path / "artifacts"
    words = ["-e", f"benchmark_profile={profile}", "--junit", str(junit), "--markdown", str(page)]
    inventory = playbooks.inventory(benchmark_notify=f"tee {tmp_path}/notified.json")
    done = run_ci(playbooks, inventory, *words, "--artifacts", str(artifacts))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Notified: tee." in done.stdout
    run_dir = (playbooks.results / "latest").resolve()
    notified = (tmp_path / "notified.json").read_text()
    assert notified == (run_dir / "verdict.json").read_text()
    reported = json.loads(notified)
    assert (reported["outcome"], reported["run_id"], reported["counted"]) == ("valid", run_dir.name, ["jw2", "jw3"])
    assert reported["report"] == str(run_dir / "report.html")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert "TASK [" in done.stdout
    recap = [line.split() for line in done.stdout.partition("PLAY RECAP")[2].splitlines() if "changed=" in line]
    assert {line[0]: line[3] for line in recap if line[0] != "localhost"} == {"jw2": "changed=1", "jw3": "changed=1"}
    for suite in ("jw2", "jw3", "all nodes"):
        assert set(cases(junit, suite).values()) == {"passed"}
    assert f"| Run | {run_dir.name} |" in page.read_text()
    assert page.read_text().startswith("## LLM inference benchmark: VALID\n")
    kept = [path for path in artifacts.rglob("*") if path.is_file()]
    events = [json.loads(path.read_text()) for path in kept if path.parent.name == "job_events"]
    reported = [line for event in events if event["event"] == "verbose" for line in event["stdout"].splitlines()]
    for node in ("jw2", "jw3"):
        assert [line for line in reported if line.endswith(f"{node}: measuring")], (
            "progress is events, and nothing is drawn"
        )
    assert [path for path in kept if TOKEN in path.read_text(errors="replace")] == []
    assert not (CHECKOUT / "artifacts").exists()


def test_failed_nodes_and_invalid_verdicts_are_1(playbooks: Playbooks, tmp_path: Path) -> None:
    cluster, junit, page = playbooks.cluster, tmp_path / "junit.xml", tmp_path / "page.md"
    # jw2 misses its target; of jw3 nobody knows the host key. ansible-runner alone would talk to it nevertheless.
    hosts = {"jw2": {**cluster.host("jw2"), "benchmark_target_qps": 100000}, "jw3": cluster.host("jw3")}
    cluster.known_hosts.write_text(cluster.nodes["jw2"].known_hosts_line())
    try:
        # Nobody listens there, which changes nothing.
        inventory = playbooks.inventory(hosts, benchmark_notify="http://127.0.0.1:1/of-nobody")
        done = run_ci(playbooks, inventory, "--junit", str(junit), "--markdown", str(page))
        assert done.returncode == 1, done.stdout + done.stderr
        assert cases(junit, "jw2")["QPS"].startswith("failure QPS: ")
        assert cases(junit, "jw3")["verdict"].startswith("error preflight: Not reachable: The SSH host key of ")
        assert cases(junit, "all nodes")["verdict"].startswith("failure 1 of 2 nodes is not counted: jw3.")
        assert "INVALID" in page.read_text()
        said = "benchmark_notify: 127.0.0.1 could not be reached: Connection refused. The run is not affected."
        assert said in " ".join(done.stdout.split())

        # Only nodes that fail count: jw2 alone delivered, whatever its verdict.
        lenient = run_ci(playbooks, inventory, "--policy", "nodes", "--limit", "jw2", "--junit", str(junit))
        assert lenient.returncode == 0, lenient.stdout + lenient.stderr
        assert cases(junit, "jw2")["verdict"].startswith("failure QPS ")
    finally:
        cluster.trust()


def test_a_bad_setting_is_2_and_reported(playbooks: Playbooks, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    inventory = playbooks.inventory(benchmark_notify=f"tee {tmp_path}/notified.json")
    done = run_ci(playbooks, inventory, "-e", "benchmark_modell=x", "--junit", str(junit))
    assert done.returncode == 2
    reported = json.loads((tmp_path / "notified.json").read_text())
    assert (reported["outcome"], reported["run_id"], reported["reasons"][0]) == ("refused", None, "No run was opened.")
    assert reported["reasons"][1].startswith("benchmark_modell is not a setting")
    assert "benchmark_modell is not a setting" in done.stderr
    assert "benchmark_modell is not a setting" in cases(junit, "all nodes")["playbook"]
    assert not playbooks.results.exists()


def fingerprint(node: SshNode) -> str:
    reported = subprocess.run(["ssh-keygen", "-lf", str(node.host_key)], capture_output=True, text=True, check=True)
    return reported.stdout.split()[1]


def test_host_keys_are_trusted_when_confirmed_and_only_then(playbooks: Playbooks, tmp_path: Path) -> None:
    cluster = playbooks.cluster
    jw2, jw3 = cluster.nodes["jw2"], cluster.nodes["jw3"]
    known = tmp_path / "fresh" / "known_hosts"
    keep_here = f"-F none -o UserKnownHostsFile={known} -o IdentitiesOnly=yes"
    inventory = playbooks.inventory(ansible_ssh_common_args=keep_here)

    twice = {name: cluster.host(name) for name in ("jw2", "jw3")} | {"twin": cluster.host("jw2")}
    more = playbooks.cluster.inventory(
        tmp_path / "twice.yml", {**playbooks.settings(), "ansible_ssh_common_args": keep_here}, twice
    )
    shown = playbooks.run("trust", "--check", inventory=more)
    assert f"jw2, twin give the same SSH host key ({fingerprint(jw2)})" in " ".join(shown.output.split())
    assert shown.code == 0, shown.output
    assert fingerprint(jw2) in shown.output
    assert fingerprint(jw3) in shown.output
    assert not known.exists()

    # Nobody there who could answer, and fingerprints of other keys: nothing is kept.
    silent = playbooks.run("trust", inventory=inventory)
    wrong = playbooks.run("trust", "-e", f"trust_fingerprints=SHA256:{'a' * 43}", inventory=inventory)
    assert silent.code != 0
    assert wrong.code != 0
    assert "the fingerprints above were not confirmed" in " ".join(silent.output.split())
    assert f"Not trusted: the node presents {fingerprint(jw2)}" in " ".join(wrong.output.split())
    assert not known.exists()

    # The right one for jw2, and jw3 has another key than it had.
    keygen(tmp_path / "old")
    old = " ".join((tmp_path / "old.pub").read_text().split()[:2])
    known.parent.mkdir(exist_ok=True)
    before = f"[{jw3.address}]:2222 {old}"
    known.write_text(before)  # and no newline at its end
    confirmed = f"trust_fingerprints={fingerprint(jw2)},{fingerprint(jw3)}"
    changed = playbooks.run("trust", "-e", confirmed, inventory=inventory)
    assert changed.code != 0
    reported = " ".join(changed.output.split())
    assert f"The SSH host key of [{jw3.address}]:2222 has changed. It presents 256 {fingerprint(jw3)}" in reported
    assert (changed.recap("jw2")["changed"], changed.recap("jw3")["failed"]) == (1, 1)
    assert known.read_text() == f"{before}\n{jw2.known_hosts_line()}"

    # A person at a terminal; jw2 is known now and no longer asked about.
    known.write_text(jw2.known_hosts_line())
    command = playbooks.command("trust", inventory=inventory)
    child = pexpect.spawn(
        command[0], command[1:], cwd=str(CHECKOUT), env=playbooks.environment(), encoding="utf-8", timeout=60
    )
    child.expect_exact("(yes/no)")
    seen = str(child.before)
    assert fingerprint(jw3) in seen
    assert fingerprint(jw2) not in seen
    child.sendline("yes")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    assert known.read_text() == jw2.known_hosts_line() + jw3.known_hosts_line()
    assert playbooks.run("preflight", inventory=inventory).code == 0
