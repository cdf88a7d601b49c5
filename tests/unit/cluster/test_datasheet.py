"""Makers' figures: which are there, that they are dense, and how they stand beside what was measured."""

from pathlib import Path

import pytest

from benchmark.cluster.aggregate import gather
from benchmark.cluster.datasheet import DATASHEETS, datasheet_value, datasheet_words
from benchmark.cluster.render.summary import render_cluster
from benchmark.records import HardwareProbes
from tests.unit.building import add_node, asked, make_run, probes


def test_names_are_those_of_the_driver() -> None:
    assert all(name.startswith(("NVIDIA ", "Tesla ")) for name in DATASHEETS)
    # Of the project's own nodes, and of those that its figures in the documentation were measured on.
    assert {"NVIDIA A30", "NVIDIA H100 80GB HBM3", "NVIDIA H200"} <= DATASHEETS.keys()


@pytest.mark.parametrize("name", DATASHEETS)
def test_rates_are_dense(name: str) -> None:
    known = DATASHEETS[name]
    # With sparsity a rate of 8 bits would be four times that of 16: tensor cores do twice as many of half the size.
    for eight in (known.float8, known.int8):
        if eight is not None and known.float16 is not None:
            # Of the GeForce, whose sums in 32 bits are halved on purpose, whole numbers are not.
            most = 4.0 if "GeForce" in name else 2.05
            assert 1.9 <= eight / known.float16 <= most
    assert known.bfloat16 in (None, known.float16)


def test_what_is_not_known_is_undefined() -> None:
    assert datasheet_value("NVIDIA H200", "device_memory_read") == 4800
    assert datasheet_value("NVIDIA H200", "sustained_matrix_bfloat16") is None
    assert datasheet_value("NVIDIA H200", "kernel_launch") is None
    assert datasheet_value("NVIDIA H100 NVL", "matrix_bfloat16") is None
    assert datasheet_value("Tesla T4", "matrix_bfloat16") is None
    assert datasheet_value("AMD Instinct MI300X", "device_memory_read") is None
    assert datasheet_words([HardwareProbes(seconds=1)]) == ""


def test_the_summary_gives_the_share_of_the_median_gpu(tmp_path: Path) -> None:
    resolved = asked(4)
    make_run(tmp_path, {"n1": resolved, "n2": resolved})
    for name in ("n1", "n2"):
        add_node(tmp_path, name, resolved, [1000.0] * 4, probes=probes(8))
    gathered = gather(tmp_path)
    text = " ".join(render_cluster(gathered.result, gathered.run).split())
    assert (
        "Datasheet NVIDIA H200: device memory read 4,100 of 4,800 GB/s (85%), matrix bfloat16 700 of 990 TFLOP/s (71%)"
    ) in text
    # It is context: the nodes are valid.
    assert gathered.result.verdict.valid
