"""An engine, a scenario, a dataset and a profile are one file each, and nothing else has to be touched."""

import importlib.util
import sys
from pathlib import Path

import pytest

from benchmark import profiles
from benchmark.node.run import RunRequest, run
from benchmark.resolve import resolve

ENGINE = """
from benchmark.node import interfaces
from benchmark.node.interfaces import Answer, now_ns
from benchmark.records import EngineInfo

class Engine(interfaces.Engine):
    def load(self):
        return EngineInfo(name="toy")

    def submit(self, query, listener):
        listener.first_token(query, now_ns())
        listener.completed(query, now_ns(), Answer.of(1, (query.index, 7)))
"""
DATASET = """
from benchmark.node.interfaces import Dataset, Prompt

def load(settings, options):
    return Dataset("toy", tuple(Prompt(f"p{i}", "Say something.") for i in range(options["prompts"])), "00" * 32)
"""
SCENARIO = """
from benchmark.node import interfaces
from benchmark.node.interfaces import Outcome, now_ns

class Scenario(interfaces.Scenario):
    def run(self, workload, issuer, conditions):
        queries = [workload.query(index) for index in range(workload.samples)]
        for query in queries:
            issuer.issue(query, now_ns())
        for query in queries:
            issuer.wait(query)
        return Outcome()
"""
PROFILE = """
name: toy
version: 1
scenario: toy
engine: toy
dataset: toy
dataset_options: {prompts: 3}
samples: 5
limits: [{metric: queries.failed, at_most: 0}]
"""
FILES = {"engines": ENGINE, "datasets": DATASET, "scenarios": SCENARIO}


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the plugins' directories with one file more in each."""
    monkeypatch.setattr(profiles, "_NODE", tmp_path)
    for kind, text in FILES.items():
        (tmp_path / kind).mkdir()
        path = tmp_path / kind / "toy.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(f"benchmark.node.{kind}.toy", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    (tmp_path / "toy.yaml").write_text(PROFILE)
    return tmp_path


def test_a_toy_of_each_kind_runs(toys: Path, tmp_path: Path) -> None:
    resolved = resolve(
        {"benchmark_profile": str(toys / "toy.yaml"), "benchmark_device": "cpu", "benchmark_probes": "off"}
    )
    directory = tmp_path / "run"
    directory.mkdir()
    result = run(RunRequest("r1", "jw2", resolved, directory))
    assert result.engine is not None
    assert (result.engine.name, result.status) == ("toy", "complete")
    assert result.metrics is not None
    assert result.metrics.queries.completed == 5
    assert result.verdict is not None
    assert result.verdict.valid
