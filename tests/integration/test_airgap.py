"""The whole job on nodes that reach nothing but the controller, and share nothing with it or with each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.files import read_record
from benchmark.fleet.rendezvous import READY_FILE
from benchmark.records import ReadyNode
from benchmark.rundir import ORDER
from tests.hub_server import Hub, small_model
from tests.integration.conftest import BIN, Done, Playbooks, write_least_requirements
from tests.integration.isolated_nodes import HOME, IsolatedNode, isolated_cluster, why_not
from tests.integration.ssh_nodes import CHECKOUT, PORT, Cluster

REQUIREMENTS = CHECKOUT / ".build" / "tests" / "requirements-airgap.txt"
MODEL = "org/small"
# The tasks of python_env and hf_cache.
PROVIDE = (
    "Ensure that the Python environment and the benchmark are installed",
    "Ensure that the model, and any dataset that the profile needs, are complete",
)
# The distribution's: one that lies in a home would not be on the node.
NODE_PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with isolated_cluster(tmp_path_factory.mktemp("isolated"), ("jw2", "jw3")) as made:
        yield made


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    """What `make wheelhouse` makes, kept between runs of the tests; what is there already is not brought again."""
    directory = CHECKOUT / ".build" / "tests" / "wheelhouse"
    directory.mkdir(parents=True, exist_ok=True)
    write_least_requirements(REQUIREMENTS)
    asked = [NODE_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    # As a user calls it, with this very environment, which needs no making.
    words = ["-o", ".venv/.controller", f"BIN={BIN}", f"WHEELHOUSE={directory}", f"REQUIREMENTS={REQUIREMENTS}"]
    done = subprocess.run(
        ["make", "wheelhouse", f"NODE_PYTHON={version}", "TORCH_INDEX_URL=", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture
def gap(nodes: Cluster, wheelhouse: Path, tmp_path: Path) -> Iterator[Playbooks]:
    """The playbooks with the nodes' own directories at their defaults, and everything from the controller."""
    control_path = Path(tempfile.mkdtemp(prefix="cp"))
    variables = {
        "benchmark_model": MODEL,
        "benchmark_work_dir": "~/.local/share/llm-benchmark/runs",
        "python_env_dir": "~/.local/share/llm-benchmark/venv",
        "python_env_python": NODE_PYTHON,
        "python_env_requirements": str(REQUIREMENTS),
        "python_env_wheelhouse": str(wheelhouse),
        "hf_cache_dir": "~/.cache/huggingface",
        "hf_cache_source": "controller",
        "hf_cache_controller_dir": str(tmp_path / "controller"),
        "hf_cache_min_free_gb": 0,
    }
    yield Playbooks(nodes, tmp_path, tmp_path / "unused", control_path, variables)
    shutil.rmtree(control_path, ignore_errors=True)


def on(cluster: Cluster, node: str, script: str) -> str:
    """Run a script of sh on the node, over SSH, and return what it prints."""
    words = ["-F", "none", "-i", str(cluster.key), "-o", f"UserKnownHostsFile={cluster.known_hosts}", "-p", str(PORT)]
    return subprocess.run(
        ["ssh", *words, cluster.nodes[node].address, "sh", "-s"],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


CONNECT = f"""{NODE_PYTHON} - <<'END'
import errno, socket
for host, port in {{targets}}:
    try:
        socket.create_connection((host, port), timeout=5)
        print(host, "reached")
    except OSError as error:
        print(host, errno.errorcode.get(error.errno, str(error)))
END
"""


def test_a_node_reaches_nothing_and_shares_nothing(nodes: Cluster) -> None:
    with Hub() as hub:
        port = int(hub.url.rpartition(":")[2])
        for node, other in (("jw2", "jw3"), ("jw3", "jw2")):
            assert on(nodes, node, "hostname").strip() == node
            routes = on(nodes, node, "ip route; ip -6 route").splitlines()
            assert [line for line in routes if "eth0" not in line or "default" in line or "via" in line] == []
            # An address of the internet, the other node, and what only the controller's own loopback has.
            targets = [("192.0.2.1", 443), (nodes.nodes[other].address, PORT), ("127.0.0.1", port)]
            reported = on(nodes, node, CONNECT.format(targets=targets)).splitlines()
            assert reported == [
                "192.0.2.1 ENETUNREACH",
                f"{nodes.nodes[other].address} ENETUNREACH",
                "127.0.0.1 ECONNREFUSED",
            ]
    marks = {node: f"{os.getpid()}-{node}" for node in nodes.nodes}
    for node, mark in marks.items():
        on(nodes, node, f"touch ~/{mark} /tmp/{mark} /var/tmp/{mark} /dev/shm/{mark}")
    for node, mark in marks.items():
        found = on(nodes, node, f"ls ~ /tmp /var/tmp /dev/shm; ls -A {CHECKOUT} {sys.prefix} || true")
        assert found.count(mark) == 4
        assert not [other for other in marks.values() if other != mark and other in found]
        assert "pyproject.toml" not in found
        assert "pyvenv.cfg" not in found
        assert not any(Path(place, mark).exists() for place in (HOME, "/tmp", "/var/tmp", "/dev/shm"))
        commands = on(nodes, node, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "sshd" in commands
        assert "pytest" not in commands
    assert len({on(nodes, node, "cat /etc/machine-id") for node in marks}) == 2


@pytest.mark.timeout(280)
def test_the_whole_job_from_nothing_and_again(gap: Playbooks, nodes: Cluster) -> None:
    with Hub() as hub:
        model = hub.add(MODEL, small_model())
        inventory = gap.inventory(benchmark_model_revision=model.commit)
        first = gap.run("benchmark", inventory=inventory, HF_ENDPOINT=hub.url)
        assert first.code == 0, first.output[-4000:]
        assert len([request for request in hub.downloads() if request.to_storage]) == 2  # once, on the controller
    for task in PROVIDE:
        assert changed(first, task) == ["jw2", "jw3"]
    assert_measured_at_home(first, nodes, model.files)

    # The hub is gone now.
    again = gap.run("benchmark", inventory=inventory)
    assert again.code == 0, again.output[-4000:]
    assert not [task for task in PROVIDE if task in again.output], "nothing is lacking"
    assert again.cluster["counted"] == 2
    assert again.run_dir != first.run_dir
    print(f"\nprovisioning that changes nothing, 2 nodes: {provisioning_s(again.run_dir):.1f} s")


def assert_measured_at_home(done: Done, nodes: Cluster, files: dict[str, bytes]) -> None:
    """Hold what came back against what lies in each node's own home."""
    assert done.cluster["counted"] == 2
    assert sorted(row["node"] for row in done.cluster["nodes"] if row["status"] == "complete") == ["jw2", "jw3"]
    for node in nodes.nodes.values():
        assert isinstance(node, IsolatedNode)
        result = json.loads(next(done.run_dir.glob(f"nodes/{node.name}/mlperf_*.json")).read_text())
        assert result["environment"]["hostname"] == node.name
        assert result["metrics"]["queries"]["completed"] == 8
        share = node.home / ".local" / "share" / "llm-benchmark"
        wheels = (share / "venv" / ".llm-benchmark-wheels").read_text()
        assert re.search(r"^pydantic==\S+ --hash=sha256:[0-9a-f]{64}$", wheels, re.MULTILINE)
        # Of what was sent, only what is installed is left.
        assert not (share / ".venv.wheels").exists()
        weights = next(node.home.glob(".cache/huggingface/hub/models--*/snapshots/*/model-00001-of-00002.safetensors"))
        assert weights.resolve().is_relative_to(node.home.resolve())
        assert weights.read_bytes() == files["model-00001-of-00002.safetensors"]


def changed(done: Done, task: str) -> list[str]:
    """Return the nodes that a task changed, sorted."""
    found, at = [], ""
    for line in done.output.splitlines():
        if line.startswith("TASK ["):
            at = line
        if task in at and (reported := re.match(r"changed: \[(\w+)\]", line)):
            found.append(reported[1])
    return sorted(found)


def provisioning_s(run_dir: Path) -> float:
    """Return the seconds from a node's order to the start of its run, of the slowest."""
    taken = []
    for place in run_dir.glob("nodes/*"):
        launched = read_record(place / READY_FILE, ReadyNode).launched_unix_ns
        taken.append(launched / 1e9 - (place / ORDER).stat().st_mtime)
    return max(taken)


def test_a_wheelhouse_that_lacks_a_pin_is_refused(gap: Playbooks, wheelhouse: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(wheelhouse, short)
    listing: dict[str, Any] = json.loads((short / "wheelhouse.json").read_text())
    listing["wheels"] = [wheel for wheel in listing["wheels"] if wheel["name"] != "pydantic"]
    (short / "wheelhouse.json").write_text(json.dumps(listing))
    # Nobody listens there.
    hosts = {"jw2": {"ansible_host": "127.0.0.1", "ansible_port": 1}}
    gap.variables["python_env_wheelhouse"] = str(short)
    done = gap.run("provision", inventory=gap.inventory(hosts))
    assert done.code != 0
    said = " ".join(done.output.split())
    assert f"The wheelhouse {short} has no wheel of pydantic==" in said
    assert "Not reachable" not in said


def test_nothing_is_left_behind_by_a_test_that_fails(tmp_path: Path) -> None:
    asleep = f"600.{os.getpid()}"
    (tmp_path / "cluster").mkdir()
    names: list[str] = []

    def fail_in_the_middle() -> None:
        with isolated_cluster(tmp_path / "cluster", ("jw8", "jw9"), first=8) as made:
            for node in made.nodes.values():
                assert isinstance(node, IsolatedNode)
                on(made, node.name, f"setsid sleep {asleep} < /dev/null > /dev/null 2>&1 &")
                names.append(node.namespace)
            wait_until(lambda: len(sleepers(asleep)) == 2)
            assert all(name in links() and name in namespaces() for name in names)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    wait_until(lambda: not sleepers(asleep))
    assert not any(name in links() or name in namespaces() for name in names)


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sleepers(argument: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", argument.encode()]:
                found.append(process.name)
        except OSError:
            continue
    return found


def links() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
