"""No stranger is contacted, and nothing is run from a place where the checkout's configuration is not in use."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
EXAMPLE = CHECKOUT / "inventory/hosts.example.yml"
# What speaks to no node, and what all others begin with.
WITHOUT_NODES = {"report.yml", "require_nodes.yml"}


@pytest.fixture
def no_ssh(tmp_path: Path) -> dict[str, str]:
    """An environment whose ssh, ssh-keyscan and so on leave a file where they are called, and go nowhere."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("ssh", "ssh-keyscan", "scp", "sftp"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/contacted\nexit 255\n")
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {**kept, "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}


def play(playbook: str, *words: str, cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    command = ["ansible-playbook", str(CHECKOUT / f"playbooks/{playbook}.yml"), *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_every_playbook_requires_nodes_before_it_speaks_to_one() -> None:
    playbooks = {path.name: yaml.safe_load(path.read_text()) for path in (CHECKOUT / "playbooks").glob("*.yml")}
    assert {"benchmark.yml", "trust.yml", "reset.yml", "report.yml"} <= playbooks.keys()
    first = {name: plays[0].get("ansible.builtin.import_playbook") for name, plays in playbooks.items()}
    assert {name for name, imported in first.items() if imported != "require_nodes.yml"} == WITHOUT_NODES


def test_the_example_s_nodes_are_not_contacted(no_ssh: dict[str, str], tmp_path: Path) -> None:
    # As it is once it was copied, and nothing more was done.
    copied = tmp_path / "hosts.yml"
    shutil.copy(EXAMPLE, copied)
    code, said = play("preflight", "-i", str(copied), cwd=CHECKOUT, environment=no_ssh)
    assert code != 0
    assert "no node was contacted: copy inventory/hosts.example.yml to inventory/hosts.yml, put your nodes" in said
    assert not (tmp_path / "contacted").exists()


def test_an_inventory_that_was_edited_is_used(no_ssh: dict[str, str], tmp_path: Path) -> None:
    inventory = yaml.safe_load(EXAMPLE.read_text())
    assert [*inventory["gpu_nodes"]["hosts"]] == ["jw2", "jw3"]
    del inventory["gpu_nodes"]["vars"]["example_nodes"]
    inventory["gpu_nodes"]["hosts"] = {"mine": {"ansible_host": "127.0.0.1", "ansible_port": 1}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    code, said = play("preflight", "-i", str(tmp_path / "hosts.yml"), cwd=CHECKOUT, environment=no_ssh)
    assert (code, "Not reachable" in said) == (2, True), said
    assert (tmp_path / "contacted").exists()


def test_without_an_inventory_it_is_said_how_to_make_one(no_ssh: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, said = play("preflight", "-i", str(tmp_path / "empty"), cwd=CHECKOUT, environment=no_ssh)
    assert code != 0
    assert f"{tmp_path / 'empty'} lists no hosts. List your nodes there under gpu_nodes, as in inventory/" in said
    assert "cd " not in said


@pytest.mark.parametrize("limit", [(), ("--limit", "jw2")])
def test_a_misspelled_group_is_named(limit: tuple[str, ...], no_ssh: dict[str, str], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(yaml.safe_dump({"gpu_node": {"hosts": {"jw2": {}, "jw3": {}}}}))
    code, said = play("preflight", "-i", str(hosts), *limit, cwd=CHECKOUT, environment=no_ssh)
    assert code == 2, said
    assert f"{hosts} has a group gpu_node (jw2, jw3): did you mean gpu_nodes?" in said
    assert not (tmp_path / "contacted").exists()


@pytest.mark.parametrize(("playbook", "given"), [("reset", "reset_confrim=yes"), ("preflight", "target_qps=3")])
def test_a_name_that_nothing_reads_is_refused(
    playbook: str, given: str, no_ssh: dict[str, str], tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(
        yaml.safe_dump({"gpu_nodes": {"hosts": {"mine": {"ansible_host": "127.0.0.1", "hf_cahce_dir": 1}}}})
    )
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/gpu_node.yml").write_text("benchmark_target_qps: 3")
    code, said = play(playbook, "-i", str(hosts), "-e", given, cwd=CHECKOUT, environment=no_ssh)
    assert code == 2, said
    assert f"{given.partition('=')[0]} is not a setting, and nothing reads it: did you mean" in said
    assert not (tmp_path / "contacted").exists()
    if playbook == "preflight":  # of an inventory it is only said: others may read it
        code, said = play(playbook, "-i", str(hosts), cwd=CHECKOUT, environment=no_ssh)
        assert "hf_cahce_dir is not a setting, and nothing reads it: did you mean hf_cache_dir?" in said
        assert "gpu_node.yml has no effect: the inventory has no group gpu_node: did you mean gpu_nodes?" in said


def test_from_elsewhere_it_is_said_where_to_go(no_ssh: dict[str, str], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(yaml.safe_dump({"gpu_nodes": {"hosts": {"mine": {"ansible_host": "127.0.0.1"}}}}))
    where = f"cd {CHECKOUT} first, or set ANSIBLE_CONFIG={CHECKOUT}/ansible.cfg."
    code, said = play("preflight", "-i", str(hosts), cwd=tmp_path, environment=no_ssh)
    assert (code, where in said) == (2, True), said
    for playbook in ("preflight", "report"):
        code, said = play(playbook, cwd=tmp_path, environment=no_ssh)
        assert (code, where in said) == (2, True), said
    assert not (tmp_path / "contacted").exists()
    named = {**no_ssh, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    code, said = play("preflight", "-i", str(hosts), cwd=tmp_path, environment=named)
    assert "Not reachable" in said, said


def test_what_runner_keeps_is_named_where_it_has_a_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "plugins/action"))
    settings = importlib.import_module("benchmark_settings")
    monkeypatch.setattr(settings, "CHECKOUT", tmp_path)
    (tmp_path / "env").mkdir()
    (tmp_path / "env/extravars").write_text("benchmark_target_qps: 9")
    # In a directory of its own, as `benchmark ci` calls it, runner reads nothing of these.
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", "/tmp/elsewhere/artifacts/1")
    settings._name_what_runner_keeps()
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", str(tmp_path / "artifacts/1"))
    settings._name_what_runner_keeps()
    said = " ".join(capfd.readouterr().err.split())
    assert f"ansible-runner applies {tmp_path}/env/extravars to this run; it was written at 20" in said


def test_what_runner_keeps_is_ignored_by_git() -> None:
    paths = ["env/extravars", "env/cmdline", "env/settings", "artifacts/x/stdout", "inventory/hosts.yml"]
    git = ["git", "-c", "safe.directory=*", "check-ignore", *paths, "env/envvars"]
    done = subprocess.run(git, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == paths
