"""The 35 fields of a system with GPUs, from what the run saw."""

import json
from dataclasses import replace
from pathlib import Path

import yaml

from benchmark.cluster.submission.parts import Submission, gather_parts
from benchmark.cluster.submission.rules import DATACENTER, EDGE
from benchmark.cluster.submission.system_file import SystemFile
from benchmark.cluster.submission.systems import system_description
from benchmark.cluster.submission.tree import write_tree
from benchmark.records import Gpu
from tests.unit.cluster.submission.checker import FIELDS
from tests.unit.cluster.submission.conftest import ANSWERS


def test_what_the_run_saw_stands_in_the_fields(offline: Path) -> None:
    part = gather_parts([offline], ["jw2"]).parts("jw2")[0]
    gpu = Gpu(
        index=0,
        name="NVIDIA A30",
        memory_mib=24576,
        sm_clock_max_mhz=1440,
        pcie_generation=1,
        pcie_generation_max=4,
        pcie_width=16,
        pcie_width_max=16,
    )
    environment = part.environment.model_copy(
        update={"gpus": (gpu, gpu), "driver": "570.1", "cuda": "12.8", "memory_mib": 515_800, "cpu": "AMD EPYC 7543"}
    )
    part = replace(part, result=part.result.model_copy(update={"environment": environment}))
    answers = SystemFile.model_validate(yaml.safe_load(ANSWERS))
    reported = system_description(part, answers, "closed", "Us", "datacenter")
    assert sorted(reported) == sorted(FIELDS)
    expected = {
        "accelerators_per_node": 2,
        "accelerator_model_name": "NVIDIA A30",
        "accelerator_memory_capacity": "24 GiB",
        "accelerator_frequency": "1440 MHz",
        "accelerator_host_interconnect": "PCIe Gen4 x16",
        "host_memory_capacity": "504 GiB",
        "host_processor_model_name": "AMD EPYC 7543",
        "number_of_nodes": 1,
        "host_network_card_count": "1",
        "framework": "the simulated engine",
    }
    assert {name: reported[name] for name in expected} == expected
    assert "NVIDIA driver 570.1, CUDA 12.8" in str(reported["other_software_stack"])
    assert "unverified, not an MLCommons submission" in str(reported["sw_notes"])
    # An answer of the user's is better than what was seen.
    stated = answers.model_copy(update={"accelerator_host_interconnect": "NVLink-C2C"})
    assert system_description(part, stated, "open", "Us", "edge")["accelerator_host_interconnect"] == "NVLink-C2C"


def test_a_system_is_of_the_suites_that_it_was_measured_in(offline: Path, tmp_path: Path) -> None:
    parts = gather_parts([offline])
    scenarios = parts.benchmarks[DATACENTER]
    submission = Submission({DATACENTER: {"jw2": scenarios["jw2"]}, EDGE: {"jw3": scenarios["jw3"]}}, ())
    answers = SystemFile.model_validate(yaml.safe_load(ANSWERS))
    systems = write_tree(tmp_path / "tree", submission, answers, "open", "Us") / "open" / "Us" / "systems"
    reported = {path.stem: json.loads(path.read_text())["system_type"] for path in systems.iterdir()}
    assert reported == {"A_server-1": "datacenter", "A_server-2": "edge"}
