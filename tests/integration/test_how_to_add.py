"""The rows of "How to add" in docs/architecture.md, followed in a scratch copy of the checkout, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import BIN, make_model_directory
from tests.integration.ssh_nodes import CHECKOUT
from tests.unit.cluster.wheel_files import make_wheel
from tests.unit.node.test_plugins import DATASET, ENGINE, PROFILE, SCENARIO

COPIED = ("benchmark", "plugins", "roles", "playbooks", "tools", "docs", ".github", ".ci")

DECLARATION = """
from benchmark.provisioned_engine import Lock, ProvisionedEngine, ServerOptions

class ToyOptions(ServerOptions):
    speed: int = 1

def words(start, options):
    return ["launch", "--model", str(start.snapshot), "--port", str(start.port), "--context", str(start.max_model_len),
            "--speed", str(options.speed), *options.arguments]

ENGINE = ProvisionedEngine(
    name="toyserve",
    title="ToyServe",
    package="toyserve",
    lock=Lock("requirements-toyserve.txt", (3, 10), (3, 13), "x86_64", (2, 17), oldest_driver=570),
    options=ToyOptions,
    program="toyserve",
    words=words,
    variables={"TOY_QUIET": "1"},
    packages=("toyserve", "torch"),
    min_free_gb=0.01,
    disk="a toy",
)
"""
ACTION = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shared"))
from node_action import NodeAction

class ActionModule(NodeAction):
    def act(self):
        place = str(self.setting("toy_dir"))
        code, out, err = self.shell(f"mkdir {place}")
        return {"changed": code == 0}
"""
COMMAND = '''
"""`python3 -m benchmark toy`: greet."""

def add_arguments(parser):
    parser.add_argument("name")

def main(arguments):
    print(f"Hello {arguments.name}")
    return 0
'''
RULE = """
    if (kernel := probe.values.get("toy")) not in (None, "Linux"):
        found.append(f"The kernel is {kernel}: install Linux.")
"""
PLAY_STEP = """
        - name: Provide {name}
          ansible.builtin.import_role:
            name: {name}
            rolespec_validate: false
"""


def edit(path: Path, *changes: tuple[str, str]) -> None:
    """Insert text after each anchor, which has to be there once."""
    text = path.read_text()
    for anchor, more in changes:
        assert text.count(anchor) == 1, anchor
        text = text.replace(anchor, anchor + more)
    path.write_text(text)


def renamed_role(scratch: Path, name: str, title: str) -> Path:
    """Make a role as a copy of `roles/vllm` with another name."""
    role = scratch / "roles" / name
    shutil.copytree(scratch / "roles" / "vllm", role)
    for path in (path for path in role.rglob("*") if path.is_file()):
        path.write_text(path.read_text().replace("vllm", name).replace("vLLM", title))
    return role


def add_to_plays(scratch: Path, name: str) -> None:
    edit(scratch / "playbooks/provision.yml", ("tags: [python_env]}\n", f"    - {{role: {name}, tags: [{name}]}}\n"))
    step = "            name: python_env\n            rolespec_validate: false\n"
    edit(scratch / "playbooks/benchmark.yml", (step, PLAY_STEP.format(name=name)))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout to which one of each kind was added."""
    place = tmp_path_factory.mktemp("added") / "checkout"
    place.mkdir()
    for name in COPIED:
        shutil.copytree(CHECKOUT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in CHECKOUT.iterdir():
        if path.is_file():
            shutil.copy(path, place)
    node = place / "benchmark" / "node"
    # An engine, a scenario, a dataset, a profile.
    (node / "engines/toy.py").write_text(ENGINE)
    (node / "scenarios/toy.py").write_text(SCENARIO)
    (node / "datasets/toy.py").write_text(DATASET)
    (place / "benchmark/profiles/toy.yaml").write_text(f"{PROFILE}description: A toy.\n")
    options = "[str, type[BaseModel] | None] = {"
    models = place / "benchmark/option_models.py"
    edit(models, (f"ENGINE_OPTIONS: dict{options}\n", '    "toy": None,\n'))
    edit(models, (f"DATASET_OPTIONS: dict{options}\n", '    "toy": CnnDailymailOptions,\n'))
    edit(models, (f"SCENARIO_OPTIONS: dict{options}", '"toy": None, '))
    # An engine that is provisioned.
    (place / "benchmark/provisioned/toyserve.py").write_text(DECLARATION)
    (place / "requirements-toyserve.txt").write_text("toyserve==1.0\n")
    renamed_role(place, "toyserve", "ToyServe")
    (place / "docs/toyserve.md").write_text("# ToyServe\n")
    edit(place / "docs/README.md", ("[vLLM](vllm.md) ", "or [ToyServe](toyserve.md) "))
    add_to_plays(place, "toyserve")
    # A role that provisions, with a setting of its own.
    role = renamed_role(place, "toy", "Toy")
    readme = (role / "README.md").read_text()
    (role / "README.md").write_text(f"# toy\n\n{readme[readme.index('<!-- variables') :]}")
    (role / "tasks/main.yml").write_text("---\n- name: Provide the toy\n  toy:\n  register: toy_made\n")
    (place / "plugins/action/toy.py").write_text(ACTION)
    roles = 'PROVISIONING_ROLES = ("python_env", '
    edit(place / "benchmark/provisioned/__init__.py", (roles, '"toy", '))
    add_to_plays(place, "toy")
    setting = '    toy_dir: NonEmpty = Field("~/toy", description="where the toy lies on the node")\n\n'
    edit(place / "benchmark/settings/provisioning.py", ('seconds until one installation counts as hung")\n\n', setting))
    edit(place / "tools/generate.py", ('    "hf_cache_dir": "Model and dataset",\n', '    "toy_dir": "The toy",\n'))
    # A preflight check, a command.
    edit(place / "roles/preflight/files/probe.sh", ('part model model "$5"\n', 'say toy "$(uname -s)"\n'))
    edit(place / "benchmark/cluster/preflight.py", ("    found += _disk(probe, needs)\n", RULE))
    (place / "benchmark/commands/toy.py").write_text(COMMAND)
    edit(place / "benchmark/cli.py", ("COMMANDS = {\n", '    "toy": ("benchmark.commands.toy", "greet"),\n'))
    run(place, sys.executable, "-m", "tools.generate")
    return place


def run(place: Path, *words: str, code: int = 0, **variables: str) -> str:
    """Run a command in the copy, with its package in place of the checkout's; return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONPATH": str(place),
    }
    done = subprocess.run(
        words, cwd=place, env={**environment, **variables}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_engine_scenario_dataset_profile_and_command(scratch: Path) -> None:
    assert run(scratch, sys.executable, "-m", "benchmark", "toy", "you") == "Hello you\n"
    words = ("--set", "benchmark_profile=toy", "--set", "benchmark_device=cpu")
    printed = run(scratch, sys.executable, "-m", "benchmark", "run", *words, NODE_NAME="jw2")
    assert "VALID" in printed
    result = json.loads(next((scratch / "results").glob("*/nodes/jw2/mlperf_*.json")).read_text())
    assert (result["engine"]["name"], result["metrics"]["queries"]["completed"]) == ("toy", 5)


def test_what_is_made_from_the_settings_knows_them(scratch: Path) -> None:
    assert "toy_dir: ~/toy" in (scratch / "roles/toy/defaults/main.yml").read_text()
    page = (scratch / "docs/settings.md").read_text()
    assert "## ToyServe's environment, for the engine toyserve" in page
    assert "| `toyserve_python` | str | empty | the interpreter for that environment, 3.10 to 3.12 for the" in page
    assert "## The toy" in page
    assert "ToyServe and what it needs (requirements-toyserve.txt" in (scratch / "docs/manifest.md").read_text()


JUDGE = """
import json, sys
from dataclasses import replace
from pathlib import Path
from benchmark.cluster.drift import FACTS
from benchmark.cluster.preflight import EngineNeeds, Needs, Probe, problems
from benchmark.errors import InputError
from benchmark.node.registry import plain_engine
from benchmark.node.serving.provisioned import command, packages
from benchmark.provisioned import ENGINES
from benchmark.resolve import resolve

toy, place = ENGINES["toyserve"], sys.argv[1]
given = {"benchmark_engine": "toyserve", "benchmark_engine_options": {"speed": 3}, "benchmark_model": f"{place}/model"}
given |= {"toyserve_dir": f"{place}/env", "benchmark_device": "cpu", "toyserve_requirements": "another.txt"}
resolved = resolve(given)
def refused(**more):
    try:
        return resolve({**given, **more})
    except InputError as error:
        return str(error)
facts = {"python": "3.12.1", "venv": "yes", "engine_python": "3.13.1", "engine_venv": "yes", "machine": "x86_64"}
facts |= {"libc": "glibc 2.35", "env_disk": "/dev/a 99999999", "engine_env_disk": "/dev/a 99999999", "toy": "Plan9"}
needs = Needs("cpu", "python3", "~/env", 1, "~/hf", 0, EngineNeeds(toy, "python3", "~/toyserve", 1, locked=True))
settings, profile = resolved.settings, resolved.profile
print(json.dumps({
    "bad_option": refused(benchmark_engine_options={"sped": 1}),
    "locked_on_cpu": refused(toyserve_requirements="requirements-toyserve.txt"),
    "problems": problems(Probe(facts), needs),
    "engine": plain_engine("toyserve", settings, profile.generation, {}).called,
    "command": command(toy, settings, toy.check_options(profile.engine_options), "http://127.0.0.1:4711", 1),
    "packages": packages(toy, settings),
    "compared": "server_packages.toyserve" in FACTS,
}))
"""


def test_provisioned_engine_and_role(scratch: Path, tmp_path: Path) -> None:
    """Both by the playbook on a node on this machine; then what a run asks of the engine."""
    make_model_directory(tmp_path / "model")
    house = tmp_path / "house"
    script = {"{info}/entry_points.txt": "[console_scripts]\ntoyserve = toyserve:main\n"}
    make_wheel(house, "toyserve", "1.0", more=script)
    requirements = house / "requirements.txt"
    requirements.write_text("toyserve==1.0\n")
    words = ("--requirements", str(requirements), "--python", f"3.{sys.version_info.minor}")
    run(scratch, sys.executable, "-m", "benchmark", "wheelhouse", str(house), *words)
    variables: dict[str, Any] = {
        "ansible_connection": "local",
        "benchmark_engine": "toyserve",
        "benchmark_device": "cpu",
        "benchmark_shared_machine": True,  # other tests measure beside
        "benchmark_model": str(tmp_path / "model"),
        "hf_cache_source": "none",
        "python_env_python": sys.executable,
        "python_env_dir": str(tmp_path / "venv"),
        "python_env_min_free_gb": 0.01,
        "toyserve_dir": str(tmp_path / "env"),
        "toyserve_requirements": str(requirements),
        "toyserve_wheelhouse": str(house),
        "toy_dir": str(tmp_path / "toy"),
    }
    hosts = {"gpu_nodes": {"hosts": {"jw2": variables}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(hosts))
    tags = ("--tags", "preflight,toyserve,toy")
    printed = run(scratch, "ansible-playbook", "playbooks/provision.yml", "-i", str(tmp_path / "hosts.yml"), *tags)
    assert "TASK [toyserve : Ensure that ToyServe is installed]" in printed
    assert "TASK [vllm : Ensure that vLLM is installed]" not in printed
    assert "changed=2" in printed
    assert (tmp_path / "toy").is_dir()

    found = json.loads(run(scratch, sys.executable, "-c", JUDGE, str(tmp_path)))
    assert found["bad_option"].startswith(
        "benchmark_engine_options.sped is not an option of the engine toyserve: did you mean speed?"
    )
    assert (
        "requirements-toyserve.txt locks ToyServe's build for CUDA: set toyserve_requirements" in found["locked_on_cpu"]
    )
    assert found["problems"] == [
        "python3 is Python 3.13.1, and ToyServe needs Python 3.10 to 3.12: set toyserve_python to one.",
        "The kernel is Plan9: install Linux.",
    ]
    assert found["engine"] == "ToyServe"
    expected = "HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOY_QUIET=1 {0}/env/bin/toyserve launch --model {0}/model "
    assert expected.format(tmp_path) in found["command"]
    assert found["command"].endswith("--port 4711 --context 8192 --speed 3")
    assert (found["packages"], found["compared"]) == ({"toyserve": "1.0"}, True)
