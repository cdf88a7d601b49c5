"""The role hf_cache through the real ansible-playbook, on two local nodes, against a stand-in for the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.node.hub.cache import RepositoryCache
from benchmark.node.model.tiny import make_tiny_model
from tests.hub_server import Hub, small_articles, small_model
from tests.integration.conftest import without_torch
from tests.integration.ssh_nodes import Cluster

CHECKOUT = Path(__file__).resolve().parents[2]
MODEL = "org/small"
TOKEN = "hf_" + "Qq7sEcReT" * 4
WEIGHTS = "model-00001-of-00002.safetensors"


@dataclass
class Done:
    """How the playbook ended and what it printed."""

    code: int
    output: str

    def recap(self, node: str) -> dict[str, int]:
        line = next(line for line in self.output.splitlines() if line.startswith(node + " ") and "changed=" in line)
        return {k: int(v) for k, v in (word.split("=") for word in line.split(":", 1)[1].split())}

    @property
    def changed(self) -> tuple[int, int]:
        return self.recap("node1")["changed"], self.recap("node2")["changed"]

    def failure(self, node: str) -> str:
        """Return what is said of a node's task that failed."""
        return self.words.partition(f"fatal: [{node}]: FAILED!")[2].partition(" stage: ")[0]

    @property
    def words(self) -> str:
        """The output without line breaks, as the callback folds long messages."""
        return " ".join(self.output.split())


@dataclass
class Role:
    """Plays the role with the settings of a test."""

    directory: Path
    hub: Hub

    def cache(self, node: str) -> RepositoryCache:
        return RepositoryCache(self.directory / node, MODEL)

    def play(
        self,
        *words: str,
        environment: dict[str, str] | None = None,
        cluster: Cluster | None = None,
        nodes: dict[str, dict[str, Any]] | None = None,
        **variables: Any,
    ) -> Done:
        """Run to the end, on local nodes (two) or over SSH; `environment` is the nodes', as the play states it."""
        every = {
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self.directory / "remote_tmp"),
            "benchmark_model": MODEL,
            "benchmark_shared_machine": True,
            "hf_cache_dir": f"{self.directory}/{{{{ inventory_hostname }}}}",
            "hf_cache_controller_dir": str(self.directory / "controller"),
            "hf_cache_min_free_gb": 0,
            "python_env_dir": sys.prefix,
            "node_environment": environment or {},
            **variables,
        }
        inputs = self.directory / "inputs"
        inputs.mkdir(exist_ok=True)
        if cluster:
            cluster.inventory(inputs / "hosts.yml", every)
        else:
            hosts = nodes or {"node1": {}, "node2": {}}
            group = {"hosts": hosts, "vars": {"ansible_connection": "local", **every}}
            (inputs / "hosts.yml").write_text(yaml.safe_dump({"gpu_nodes": group}))
        play = {
            "hosts": "gpu_nodes",
            "gather_facts": False,
            "roles": ["hf_cache"],
            "environment": "{{ node_environment }}",
        }
        (inputs / "play.yml").write_text(yaml.safe_dump([play]))
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "-i",
                inputs / "hosts.yml",
                inputs / "play.yml",
                *words,
            ],
            cwd=CHECKOUT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ANSIBLE_"))},
                "HF_ENDPOINT": self.hub.url,
                "PYTHONPATH": str(CHECKOUT),
                "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
                "ANSIBLE_ROLES_PATH": str(CHECKOUT / "roles"),
                "ANSIBLE_LOCAL_TEMP": str(self.directory / "local_tmp"),
                "ANSIBLE_LOG_PATH": str(self.directory / "ansible.log"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as made:
        yield made


@pytest.fixture
def role(tmp_path: Path, hub: Hub) -> Role:
    return Role(tmp_path, hub)


def holders_of_the_token() -> list[str]:
    """Return the processes that show the token in their arguments or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            try:
                if TOKEN.encode() in (process / what).read_bytes():
                    found.append(f"{what} of {(process / 'cmdline').read_bytes()!r}")
            except OSError:
                continue
    return found


def files_with_the_token(directory: Path) -> list[Path]:
    """Return the files under `directory` that hold the token, those that gave it left out."""
    files = (path for path in directory.rglob("*") if path.is_file() and "inputs" not in path.parts)
    return [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_a_gated_model_arrives_and_the_token_shows_nowhere(role: Role) -> None:
    model = role.hub.add(MODEL, small_model(), needs_token=TOKEN)
    looks: list[list[str]] = []
    role.hub.while_sending = lambda: looks.append(holders_of_the_token())
    sources = {"node1": "hub", "node2": "hub", "node3": "controller", "node4": "controller"}
    nodes = {node: {"hf_cache_source": source} for node, source in sources.items()}
    done = role.play("-vvvvv", nodes=nodes, benchmark_model_revision=model.commit, hf_cache_token=TOKEN)
    assert done.code == 0, done.output
    assert looks == [[]] * 6, "while two nodes and the controller get two large files each"
    assert TOKEN not in done.output
    assert (role.directory / "ansible.log").stat().st_size > 1000
    assert files_with_the_token(role.directory) == []
    for node in nodes:
        assert done.recap(node)["changed"] == 1
        assert (role.cache(node).snapshot(model.commit) / WEIGHTS).read_bytes() == model.files[WEIGHTS]


def test_a_refused_token_shows_nowhere_either(role: Role) -> None:
    role.hub.add(MODEL, small_model(), needs_token="hf_another")
    done = role.play("-vvvvv", benchmark_model_revision="main", hf_cache_token=TOKEN)
    assert done.code != 0
    assert "refuses the token (401)" in done.words
    assert TOKEN not in done.output
    assert files_with_the_token(role.directory) == []
    # An argument of a wrong type makes the role's own check of its arguments speak.
    done = role.play("-vvvvv", hf_cache_timeout_s="soon", hf_cache_token=TOKEN)
    assert done.code != 0
    assert "hf_cache_timeout_s" in done.words
    assert TOKEN not in done.output
    assert files_with_the_token(role.directory) == []


def test_a_second_run_asks_nobody_and_source_none_verifies(role: Role) -> None:
    model = role.hub.add(MODEL, small_model())
    nodes: dict[str, dict[str, Any]] = {"node1": {}, "node2": {}, "absent": {"hf_cache_source": "none"}}
    settings: dict[str, Any] = {"benchmark_model_revision": model.commit, "nodes": nodes}
    check = role.play("--check", **settings)
    assert check.changed == (1, 1), check.output
    assert (check.recap("node1")["failed"], check.recap("absent")["failed"]) == (0, 1)
    assert not role.cache("node1").root.exists()
    first = role.play(**settings)
    assert first.changed == (1, 1), first.output
    assert (first.recap("node1")["failed"], first.recap("absent")["failed"]) == (0, 1)
    assert "is not in" in first.failure("absent")
    assert "hf_cache_source" in first.failure("absent")
    assert not role.cache("absent").root.exists()
    role.hub.requests.clear()
    # Another that is to verify only, where the first node has it.
    nodes["absent"]["hf_cache_dir"] = str(role.directory / "node1")
    again = role.play(**settings)
    assert (again.code, again.changed, again.recap("absent")["changed"]) == (0, (0, 0), 0), again.output
    check = role.play("--check", **settings)
    assert (check.code, check.changed, check.recap("absent")["changed"]) == (0, (0, 0), 0), check.output
    assert role.hub.requests == []


def test_the_controller_downloads_once(role: Role) -> None:
    model = role.hub.add(MODEL, small_model())
    with Hub() as closed:
        pass
    settings: dict[str, Any] = {"hf_cache_source": "controller", "environment": {"HF_ENDPOINT": closed.url}}
    done = role.play(benchmark_model_revision="main", **settings)
    assert (done.code, done.changed) == (0, (1, 1)), done.output
    assert len([request for request in role.hub.downloads() if request.to_storage]) == 2
    assert len([request for request in role.hub.requests if request.path.startswith("/api/")]) == 1
    assert role.cache("node1").commit_of("main") == model.commit
    assert not list(role.directory.glob("node*/**/*.incomplete"))

    # Only what is damaged, and only where it is, is pushed again.
    blob = (role.cache("node2").snapshot(model.commit) / WEIGHTS).resolve()
    other = (role.cache("node2").snapshot(model.commit) / "config.json").resolve()
    blob.write_bytes(bytes(len(model.files[WEIGHTS])))
    before = other.stat().st_mtime_ns
    assert role.play("--check", benchmark_model_revision="main", **settings).changed == (0, 1)
    assert role.play(benchmark_model_revision="main", **settings).changed == (0, 1)
    assert blob.read_bytes() == model.files[WEIGHTS]
    assert other.stat().st_mtime_ns == before
    role.hub.requests.clear()
    assert role.play(benchmark_model_revision=model.commit, **settings).changed == (0, 0)
    assert role.hub.requests == []


def test_the_controller_pushes_over_ssh(role: Role, cluster: Cluster) -> None:
    model = role.hub.add(MODEL, small_model(), needs_token=TOKEN)
    settings: dict[str, Any] = {
        "benchmark_model_revision": model.commit,
        "environment": {"PYTHONPATH": str(CHECKOUT), "HF_ENDPOINT": role.hub.url},
        "hf_cache_token": TOKEN,
        "cluster": cluster,
    }
    done = role.play("-vvvvv", hf_cache_source="controller", **settings)
    assert done.code == 0, done.output
    for node in ("jw2", "jw3"):
        assert done.recap(node)["changed"] == 1
        assert (role.cache(node).snapshot(model.commit) / WEIGHTS).read_bytes() == model.files[WEIGHTS]
    assert len([request for request in role.hub.downloads() if request.to_storage]) == 2
    again = role.play("-vvvvv", hf_cache_source="hub", hf_cache_dir=str(role.directory / "shared"), **settings)
    assert again.code == 0, again.output
    # One home for both nodes: one of them downloads.
    assert len([request for request in role.hub.downloads() if request.to_storage]) == 4
    for output in (done.output, again.output):
        assert TOKEN not in output
    assert files_with_the_token(role.directory) == []


def test_each_node_is_told_what_it_lacks(role: Role) -> None:
    role.hub.add(MODEL, small_model(), needs_token=TOKEN)
    ended = threading.Event()

    def hang() -> None:
        ended.wait()

    with Hub() as closed:
        pass
    with Hub() as hanging:
        hanging.add(MODEL, small_model())
        hanging.while_sending = hang
        nodes: dict[str, dict[str, Any]] = {
            "gated1": {"hf_cache_source": "controller"},
            "gated2": {"hf_cache_source": "controller"},
            "offline": {"node_environment": {"HF_ENDPOINT": closed.url}},
            "bare": {"python_env_dir": "/nowhere"},
            "hung": {"node_environment": {"HF_ENDPOINT": hanging.url}, "hf_cache_timeout_s": 3},
        }
        try:
            done = role.play(nodes=nodes, benchmark_model_revision="main")
        finally:
            ended.set()
    assert done.code != 0
    for node in ("gated1", "gated2"):
        assert "On the controller: org/small is gated" in done.failure(node)
    # By the controller, once: of the others nobody asks this hub.
    assert len([request for request in role.hub.requests if request.path.startswith("/api/")]) == 1
    assert f"{closed.url} cannot be reached" in done.failure("offline")
    assert "set hf_cache_source to controller" in done.failure("offline")
    assert "There is no Python in /nowhere on the node" in done.failure("bare")
    assert "did not arrive within hf_cache_timeout_s = 3 s" in done.failure("hung")


def test_a_directory_is_checked_for_what_loading_needs(role: Role) -> None:
    expected = {
        "config.json": "config.json",
        "tokenizer": "tokenizer",
        "model.safetensors": "holds no *.safetensors",
        "directory": "does not exist",
        "nothing": "",
    }
    nodes = {}
    for number, lacking in enumerate(expected):
        directory = role.directory / f"a model {number}"
        nodes[f"node{number}"] = {"benchmark_model": str(directory)}
        if lacking == "directory":
            continue
        directory.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
            if not name.startswith(lacking):
                (directory / name).write_text("{}")
    done = role.play(nodes=nodes, hf_cache_source="none", python_env_dir="/nowhere")
    assert done.code != 0
    for number, (lacking, said) in enumerate(expected.items()):
        failure, counts = done.failure(f"node{number}"), done.recap(f"node{number}")
        assert (counts["failed"], counts["changed"]) == (int(lacking != "nothing"), 0), done.output
        assert said in failure
        assert ("benchmark_model" in failure) == (lacking != "nothing")


def test_check_mode_needs_no_environment(role: Role) -> None:
    done = role.play("--check", benchmark_model_revision="main", python_env_dir="/nowhere")
    assert (done.code, done.changed) == (0, (1, 1)), done.output


ARTICLES = [("A café opened.", "It opened ."), ("Rain fell in {London}.", "It rained .")]


def with_a_dataset(role: Role) -> dict[str, Any]:
    """Return settings under which a dataset has to be prepared, for a model that is a directory."""
    make_tiny_model(role.directory / "tiny")
    profile = role.directory / "profile.yaml"
    profile.write_text(
        "{name: made, version: 1, scenario: closed_loop, engine: simulated, dataset: cnn_dailymail, samples: 2}"
    )
    made = role.hub.add("datasets/org/articles", small_articles(ARTICLES))
    return {
        "benchmark_model": str(role.directory / "tiny"),
        "benchmark_profile": str(profile),
        "hf_cache_dataset": "org/articles",
        "hf_cache_dataset_revision": made.commit,
        "environment": {"PYTHONPATH": f"{without_torch(role.directory)}:{CHECKOUT}"},
    }


def prepared(role: Role, node: str) -> list[str]:
    """Return the articles that were prepared on a node."""
    files = (role.directory / node / "llm-benchmark" / "datasets").glob(f"cnn_dailymail-{'?' * 16}.json")
    return [entry["input"] for path in files for entry in json.loads(path.read_text(encoding="utf-8"))]


def test_a_dataset_is_prepared_where_the_profile_needs_one(role: Role) -> None:
    settings = with_a_dataset(role)
    check = role.play("--check", **settings)
    assert (check.code, check.changed) == (0, (1, 1)), check.output
    assert prepared(role, "node1") == []
    done = role.play(**settings)
    assert (done.code, done.changed) == (0, (1, 1)), done.output
    assert prepared(role, "node1") == prepared(role, "node2") == [article for article, _ in ARTICLES]
    role.hub.requests.clear()
    assert role.play(**settings).changed == (0, 0)
    assert role.hub.requests == []


def test_the_controller_pushes_the_dataset(role: Role) -> None:
    settings = with_a_dataset(role)
    with Hub() as closed:
        pass
    settings["environment"] |= {"HF_ENDPOINT": closed.url}
    done = role.play(hf_cache_source="controller", **settings)
    assert (done.code, done.changed) == (0, (1, 1)), done.output
    assert prepared(role, "node1") == prepared(role, "node2") == [article for article, _ in ARTICLES]
    assert len([request for request in role.hub.downloads() if request.to_storage]) == 1
