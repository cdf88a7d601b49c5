"""Fixtures: two real SSH nodes called jw2 and jw3, an environment for them, and the real playbooks."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmark.node.environments import MARK
from tests.integration.ready_made import make_environment
from tests.integration.ssh_nodes import CHECKOUT, Cluster, loopback
from tests.unit.cluster.wheel_files import make_wheel

BIN = Path(sys.executable).parent
DATA = CHECKOUT / "tests" / "data"
LIGHT = "tests/data/requirements-light.txt"
# Settings of the real environment, torch included.
REAL: dict[str, Any] = {
    "python_env_requirements": "requirements-node.txt",
    "python_env_torch_index_url": os.environ.get("TORCH_INDEX_URL", ""),
}
# Packages that only a client of the hub or of servers needs: with what they need, most of what there is to install.
CLIENTS = ("aiohttp==", "huggingface_hub==")
# For an environment of the tests: most of what pip would compile is never imported.
UNCOMPILED: dict[str, Any] = {"node_environment": {"PIP_COMPILE": "0"}}


@dataclass
class Playbooks:
    """Runs playbooks of the checkout against the cluster, with results and work directories of the test's own."""

    cluster: Cluster
    directory: Path
    venv: Path
    control_path: Path
    variables: dict[str, Any] = field(default_factory=dict)
    checkout: Path = CHECKOUT

    @property
    def results(self) -> Path:
        return self.directory / "results"

    def settings(self) -> dict[str, Any]:
        return {
            "benchmark_profile": str(DATA / "fast.yaml"),
            "benchmark_device": "cpu",
            "benchmark_dtype": "float32",
            "benchmark_model": str(self.directory / "model"),
            "benchmark_results_dir": str(self.results),
            "benchmark_work_dir": f"{self.directory}/nodes/{{{{ inventory_hostname }}}}/runs",
            "benchmark_timeout_s": 120,
            # Of the machine that all nodes of the tests are: only the tests that are about them probe it.
            "benchmark_probes": "off",
            # All nodes of the tests are this machine.
            "benchmark_shared_machine": True,
            # On a busy machine nodes may miss each other's window: only the test that is about it asks for a verdict.
            "benchmark_fail_on_invalid": False,
            "python_env_dir": str(self.venv),
            "python_env_python": sys.executable,
            "python_env_requirements": LIGHT,
            "python_env_min_free_gb": 0.1,
            "hf_cache_dir": f"{self.directory}/nodes/{{{{ inventory_hostname }}}}/huggingface",
            "hf_cache_source": "none",
            **self.variables,
        }

    def environment(self, **more: str) -> dict[str, str]:
        # What loads a model in this process says that nothing is to be downloaded.
        inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        return {
            **inherited,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            # A master connection of another test must not carry this one past a changed host key.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.control_path),
            "ANSIBLE_NOCOLOR": "1",
            **more,
        }

    def inventory(self, hosts: dict[str, Any] | None = None, **more: Any) -> Path:
        return self.cluster.inventory(self.directory / "hosts.yml", {**self.settings(), **more}, hosts)

    def command(self, playbook: str, *words: str, inventory: Path | None = None) -> list[str]:
        return ["ansible-playbook", f"playbooks/{playbook}.yml", "-i", str(inventory or self.inventory()), *words]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command in a session of its own, as a terminal would."""
        return subprocess.Popen(
            command,
            cwd=self.checkout,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, playbook: str, *words: str, inventory: Path | None = None, **environment: str) -> Done:
        """Run a playbook to its end, from the checkout, as a user would."""
        done = subprocess.run(
            self.command(playbook, *words, inventory=inventory),
            cwd=self.checkout,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=560,
        )
        return Done(done.returncode, done.stdout + done.stderr, (self.results / "latest").resolve())


@dataclass
class Done:
    """How a playbook ended, what it printed, and the run it made."""

    code: int
    output: str
    run_dir: Path

    @property
    def cluster(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.run_dir / "aggregated_datacenter_results.json").read_text())
        return content

    @property
    def summary(self) -> str:
        return (self.run_dir / "benchmark_summary.txt").read_text()

    def row(self, node: str) -> dict[str, Any]:
        row: dict[str, Any] = next(row for row in self.cluster["nodes"] if row["node"] == node)
        return row

    def recap(self, node: str) -> dict[str, int]:
        """Return the counts of a node's line in the recap."""
        line = next(line for line in self.output.splitlines() if line.startswith(node + " ") and "changed=" in line)
        return {k: int(v) for k, v in (word.split("=") for word in line.split(":", 1)[1].split())}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two sshd: jw2 on 127.0.0.2, jw3 on 127.0.0.3 (127.0.1 in a second test process, and so on)."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.add("jw2", loopback(2))
        made.add("jw3", loopback(3))
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The directory of all test processes together."""
    place = tmp_path_factory.getbasetemp()
    return place if worker_id == "master" else place.parent


@pytest.fixture(scope="session")
def light_venv(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """An environment without torch: one for all test processes."""
    venv = shared / "light" / "venv"
    provide(venv, cluster, tmp_path_factory.mktemp("light"), {"python_env_requirements": LIGHT, **UNCOMPILED})
    return venv


@pytest.fixture(scope="session")
def full_venv(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodes' real environment, torch included; kept between runs of the tests, the role renews what is stale."""
    venv = CHECKOUT / ".build" / "tests" / "environments" / "venv"
    provide(venv, cluster, tmp_path_factory.mktemp("full"), {**REAL, **UNCOMPILED})
    return venv


@pytest.fixture(scope="session")
def tiny_model(full_venv: Path, shared: Path) -> Path:
    """A tiny Llama, made as a user does, with the nodes' real environment: what runs import is compiled then."""
    directory, whole = shared / "made" / "tiny", shared / "made" / "whole"
    with one_at_a_time(shared / "made" / "lock"):
        if not whole.exists():
            command = [str(full_venv / "bin" / "python"), "-m", "benchmark", "tiny-model", str(directory)]
            subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
            whole.touch()
    return directory


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Have other test processes wait for this one: what it makes they need not make."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provide(venv: Path, cluster: Cluster, directory: Path, variables: dict[str, Any]) -> None:
    """Make an environment by playbooks/provision.yml, unless it is there; other test processes wait for it.

    Its packages are there before: what the role makes from nothing is tested by test_shared_nodes.py and
    test_airgap.py.
    """
    with one_at_a_time(venv.with_name(f"{venv.name}.tests")):
        if (venv / MARK).exists():
            return
        shutil.rmtree(venv, ignore_errors=True)
        make_environment(venv, CHECKOUT / variables["python_env_requirements"])
        control_path = Path(tempfile.mkdtemp(prefix="cp"))
        make_model_directory(directory / "model")
        done = Playbooks(cluster, directory, venv, control_path, variables).run("provision")
        shutil.rmtree(control_path, ignore_errors=True)
        assert done.code == 0, done.output


@pytest.fixture
def playbooks(cluster: Cluster, light_venv: Path, tmp_path: Path) -> Iterator[Playbooks]:
    """The playbooks, with the simulated engine."""
    make_model_directory(tmp_path / "model")
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    yield Playbooks(cluster, tmp_path, light_venv, control_path)
    shutil.rmtree(control_path, ignore_errors=True)


def copy_environment(venv: Path, place: Path) -> None:
    """Copy an environment by further names of its files. Runs lock its marks: those are the copy's own."""

    def copy(source: str, target: str) -> None:
        (shutil.copy2 if Path(source).name == MARK else os.link)(source, target)

    shutil.copytree(venv, place, symlinks=True, copy_function=copy)


def unmarked(venv: Path, place: Path) -> Path:
    """Copy an environment as somebody else would have it: no mark, and none of our code.

    Where other packages are wanted pip is at work at once. To make an environment from nothing takes longest of all.
    """
    left_out = shutil.ignore_patterns("code", f"{MARK}*", "requirements.txt")
    shutil.copytree(venv, place, symlinks=True, copy_function=os.link, ignore=left_out)
    return place


def without_torch(directory: Path) -> Path:
    """Return what has to be on PYTHONPATH of who needs a tokenizer alone: transformers imports torch beside it.

    That takes most of the time of a node that only prepares prompts or waits.
    """
    place = directory / "without-torch"
    place.mkdir()
    (place / "sitecustomize.py").write_text('import sys\nsys.modules["torch"] = None\n')
    return place


def write_least_requirements(path: Path) -> None:
    """Write the pins of an environment whose nodes are no clients: they measure with the simulated engine."""
    light = (CHECKOUT / LIGHT).read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in light if not line.startswith(CLIENTS)))


def one_package(directory: Path) -> dict[str, Any]:
    """Return settings of an environment of one package that needs no index: reading one takes pip longest."""
    wheels = make_wheel(directory / "wheels", "small", "1.0").parent
    (directory / "requirements.txt").write_text("small==1.0\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    return {
        "python_env_requirements": str(directory / "requirements.txt"),
        "node_environment": {**UNCOMPILED["node_environment"], **offline},
    }


def make_model_directory(directory: Path) -> None:
    """Make what `hf_cache_source: none` looks for; the simulated engine reads none of it."""
    directory.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (directory / name).write_text("{}")
