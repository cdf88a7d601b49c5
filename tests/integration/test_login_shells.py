"""Users whose login shell is none of the Bourne family, and whose python3 is too old beside the configured one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.node.environments import MARK
from tests.integration.conftest import Playbooks, make_model_directory, one_package, unmarked
from tests.integration.ssh_nodes import Cluster, loopback

SHELLS = ("tcsh", "fish", "zsh")
# The node's own python3 where the environment is made: the tests' interpreter is configured beside it.
OLD_PYTHON = """#!/bin/sh
case $* in *--version* | -V) echo "Python 3.6.8"; exit 0 ;; esac
echo 'SyntaxError: future feature annotations is not defined' >&2
exit 1
"""


def forget(users: list[str]) -> None:
    """Remove the users. userdel would not: they share root's number, under which much runs."""
    for table in ("/etc/passwd", "/etc/shadow"):
        path = Path(table)
        lines = [line for line in path.read_text().splitlines() if line.partition(":")[0] not in users]
        path.write_text("".join(line + "\n" for line in lines))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    """A node for each shell; its user is root under another name, as only root may read what tests make."""
    made, users = Cluster(tmp_path / "cluster"), [f"bench-{name}" for name in SHELLS]
    made.directory.mkdir()
    old = tmp_path / "old"
    old.mkdir()
    (old / "python3").write_text(OLD_PYTHON)
    (old / "python3").chmod(0o755)
    forget(users)
    try:
        for number, name in enumerate(SHELLS):
            shell = shutil.which(name)
            assert shell, f"{name} is not installed (Debian: {name})"
            home = tmp_path / "home" / name
            home.mkdir(parents=True)
            add = ["useradd", "--non-unique", "--uid", "0", "--gid", "0", "--no-create-home", "--home-dir", str(home)]
            subprocess.run([*add, "--shell", shell, f"bench-{name}"], check=True, capture_output=True)
            subprocess.run(["usermod", "-p", "*", f"bench-{name}"], check=True)
            made.add(name, loopback(20 + number), config=f"SetEnv PATH={old}:{os.environ['PATH']}\n")
        yield made
    finally:
        made.stop()
        forget(users)


def test_every_login_shell_works_beside_an_old_python(nodes: Cluster, light_venv: Path, tmp_path: Path) -> None:
    make_model_directory(tmp_path / "model")
    (tmp_path / "cp").mkdir()
    playbooks = Playbooks(nodes, tmp_path, light_venv, tmp_path / "cp")
    hosts = {name: {**nodes.host(name), "ansible_user": f"bench-{name}"} for name in SHELLS}
    done = playbooks.run("benchmark", inventory=playbooks.inventory(hosts))
    assert done.code == 0, done.output
    assert [row["status"] for row in done.cluster["nodes"]] == ["complete"] * len(SHELLS)
    # An environment that is to be filled: by Ansible's module, with a file that is sent.
    venv = unmarked(light_venv, tmp_path / "venv")
    again = playbooks.inventory(hosts, python_env_dir=str(venv), **one_package(tmp_path))
    done = playbooks.run("provision", "--tags", "python_env", "--limit", "tcsh", inventory=again)
    assert done.code == 0, done.output
    for what in (MARK, "lib/python3*/site-packages/small-1.0.dist-info", f"code/*/{MARK}"):
        assert len(list(venv.glob(what))) == 1
