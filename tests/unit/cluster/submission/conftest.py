"""Runs of LoadGen on an engine that only waits: shorter than MLPerf allows, so the tree gets what that deserves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.run import RunRequest, run
from benchmark.resolve import resolve
from benchmark.settings import ResolvedSettings
from tests.unit.building import RUN_ID, make_run

ARTICLES = [{"input": "Rain.", "tok_input": [1, 2, 3], "output": "It rained all day."}] * 12
SHORT = {"min_duration_ms": 200, "min_query_count": 20}
ANSWERS = """
system_name: A server
status: rdi
host_processors_per_node: 2
host_processor_core_count: 32
host_memory_configuration: 16x 32GB DDR4
host_storage_type: NVMe SSD
host_storage_capacity: 2 TB
host_networking: Ethernet 25GbE
host_networking_topology: N/A
host_network_card_count: 1
cooling: air
"""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny model and articles."""
    directory = tmp_path_factory.mktemp("inputs")
    make_tiny_model(directory / "tiny")
    (directory / "cnn_eval.json").write_text(json.dumps(ARTICLES))
    return directory


def asked(inputs: Path, profile: str, accuracy: str = "with-performance", **settings: Any) -> ResolvedSettings:
    """Return what is asked of a short run of one of MLPerf's profiles."""
    given = {
        "benchmark_profile": profile,
        "benchmark_device": "cpu",
        "benchmark_engine": "simulated",
        "benchmark_engine_options": {"ttft_ms": 2, "tpot_ms": 0.1},
        "benchmark_model": str(inputs / "tiny"),
        "benchmark_dataset_path": str(inputs / "cnn_eval.json"),
        "benchmark_target_qps": 100,
        "benchmark_accuracy": accuracy,
        "benchmark_telemetry": False,
    }
    resolved = resolve({**given, **settings})
    changes = {
        "scenario_options": {**resolved.profile.scenario_options, **SHORT},
        "generation": {**resolved.profile.generation.model_dump(), "max_new_tokens": 16},
    }
    return ResolvedSettings.model_validate(
        {"settings": resolved.settings, "profile": {**resolved.profile.model_dump(), **changes}}
    )


def measure(directory: Path, resolved: ResolvedSettings, *nodes: str) -> Path:
    """Measure on each node and return the run's directory."""
    make_run(directory, dict.fromkeys(nodes or ("jw2",), resolved))
    for node in nodes or ("jw2",):
        run(RunRequest(RUN_ID, node, resolved, directory / "nodes" / node))
    return directory


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """A short Offline run of two nodes, with accuracy."""
    return measure(tmp_path_factory.mktemp("offline"), asked(inputs, "mlperf-offline"), "jw2", "jw3")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """A short Server run of two nodes, with accuracy."""
    return measure(tmp_path_factory.mktemp("server"), asked(inputs, "mlperf-server"), "jw2", "jw3")


@pytest.fixture(scope="session")
def interactive(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """A short run under Interactive limits, of one node and without accuracy."""
    return measure(tmp_path_factory.mktemp("interactive"), asked(inputs, "mlperf-interactive", "off"))


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Answers to what no program can see."""
    path = tmp_path / "system.yml"
    path.write_text(ANSWERS)
    return path
