"""One machine that the inventory lists twice is recognised by what it is, and not by its address."""

from __future__ import annotations

import pytest

from benchmark.cluster.machines import Machine, listed_twice
from benchmark.cluster.preflight import Probe


def machine(
    gpus: str = "", boot: str = "b1", cpus: str = "0-7", visible: str | None = None, shared: bool = False
) -> Machine:
    lines = [f"host\tgpu1\nboot_id\t{boot}\ncpus\t{cpus}\n"]
    lines += [
        f"gpu\t{index}, 00000000:{index}B:00.0, NVIDIA A30, 24576, 550.54.15, {uuid}, None\n"
        for index, uuid in enumerate(gpus.split())
    ]
    return Machine.of(Probe.parse("".join(lines)), "cuda" if gpus else "cpu", visible, shared)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (machine(), machine(), True),
        (machine(), machine(boot="b2"), False),
        (machine(boot=""), machine(boot=""), False),
        # Two containers of a machine, with CPUs or GPUs of their own.
        (machine(cpus="0-3"), machine(cpus="4-7"), False),
        (machine("GPU-a GPU-b"), machine("GPU-c"), False),
        # A machine under another kernel's name all the same, and two entries for parts of it.
        (machine("GPU-a GPU-b", boot="b2"), machine("GPU-b GPU-c"), True),
        (machine("GPU-a GPU-b", visible="0"), machine("GPU-a GPU-b", visible="1"), False),
        (machine("GPU-a GPU-b", visible="GPU-b"), machine("GPU-a GPU-b", visible="1"), True),
        (machine("GPU-a"), machine(), True),
        (machine(shared=True), machine(shared=True), False),
        (machine(shared=True), machine(), True),
    ],
)
def test_one_machine_is_recognised_whatever_it_is_called(one: Machine, other: Machine, same: bool) -> None:
    found = listed_twice({"jw10": one, "jw9": other, "elsewhere": machine(boot="b9")})
    assert set(found) == ({"jw9", "jw10"} if same else set())
    for sentence in found.values():
        assert sentence.startswith("jw9 and jw10 of the inventory ")
        assert "benchmark_shared_machine: true" in sentence
