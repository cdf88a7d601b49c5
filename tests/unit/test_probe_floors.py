"""Floors of a user's own: which can be asked for, and that nothing passes one which was not measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError
from benchmark.node.probes import found
from benchmark.node.probes.interfaces import Scope
from benchmark.probe_floors import rates
from benchmark.profiles import load_profile
from benchmark.records import GpuProbes, HardwareProbes, Measured
from benchmark.resolve import resolve
from benchmark.verdict import Findings, judge

DOCS = Path(__file__).parents[2] / "docs" / "probes.md"
LOST = "GPU 1: device memory: RuntimeError: CUDA error: an illegal memory access was encountered"


def probed(*reads: float | None, links: dict[str, float] | None = None, notes: tuple[str, ...] = ()) -> HardwareProbes:
    """Return the probes of a node whose GPUs read their memory that fast, in GB/s; None: it was not measured."""
    own = {"kernel_launch": Measured(value=2.0, unit="us")}
    return HardwareProbes(
        node={"cpu_one_core": Measured(value=900, unit="MB/s")},
        gpus=tuple(
            GpuProbes(
                index=index,
                figures=own if read is None else {**own, "device_memory_read": Measured(value=read, unit="GB/s")},
            )
            for index, read in enumerate(reads)
        ),
        between_gpus={name: Measured(value=value, unit="GB/s") for name, value in (links or {}).items()},
        notes=notes,
        seconds=1,
    )


def reasons(probes: HardwareProbes | None, floors: dict[str, float], profile: str = "quick") -> tuple[str, ...]:
    verdict = judge(load_profile(profile), Findings(probes=probes), 0, "complete", floors)
    assert verdict.valid is (not verdict.reasons)
    return verdict.reasons


LINKS = {"peer_copy_0_to_1": 380.0, "peer_copy_1_to_0": 45.0, "all_reduce": 300.0}
SLOW_LINK = "GPU 1 to 0: peer copy 1 to 0 45 GB/s is below the floor of 300 GB/s."


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ({}, ()),
        ({"device_memory_read": 3000, "cpu_one_core": 900, "all_reduce": 300, "peer_copy": 45}, ()),
        ({"device_memory_read": 3500}, ("GPU 1: device memory read 3000 GB/s is below the floor of 3500 GB/s.",)),
        ({"cpu_one_core": 900.1}, ("cpu one core 900 MB/s is below the floor of 900.1 MB/s.",)),
        ({"peer_copy": 300}, (SLOW_LINK,)),
        ({"peer_copy_1_to_0": 300}, (SLOW_LINK,)),
        ({"peer_copy_0_to_1": 300}, ()),
        (
            {"peer_copy_0_to_2": 300},
            ("There is no figure for peer copy 0 to 2, and benchmark_probe_floors requires 300.",),
        ),
        ({"matrix_float8": 1000}, ("There is no figure for matrix float8, and benchmark_probe_floors requires 1000.",)),
        (
            {"kernel_launch": 1},
            (*(f"GPU {n}: kernel launch 2 us is not a rate, and so has no floor." for n in (0, 1)),),
        ),
    ],
)
@pytest.mark.parametrize("profile", ["hardware", "quick"])
def test_a_probe_below_its_floor_is_a_reason(profile: str, floors: dict[str, float], said: tuple[str, ...]) -> None:
    assert reasons(probed(4000, 3000, links=LINKS), floors, profile) == said


@pytest.mark.parametrize("profile", ["hardware", "quick"])
def test_a_gpu_without_the_figure_does_not_pass(profile: str) -> None:
    found = probed(4000, None, 4000, notes=(LOST,))
    lacking = "GPU 1: there is no figure for device memory read, and benchmark_probe_floors requires 3500."
    assert reasons(found, {"device_memory_read": 3500}, profile) == (lacking, LOST)
    # Who asks for nothing is held against what an engine shows by itself.
    assert reasons(found, {}) == ()


def test_nothing_that_was_not_probed_passes() -> None:
    for nothing in (None, probed()):
        (said, *_) = reasons(nothing, {"device_memory_read": 1})
        assert said == "There is no figure for device memory read, and benchmark_probe_floors requires 1."


def test_an_engine_that_only_waits_has_no_floors() -> None:
    assert reasons(None, {"cpu_one_core": 1e9}, "self-test") == ()
    asked = resolve({"benchmark_profile": "self-test", "benchmark_probe_floors": {"cpu_one_core": 1}})
    assert asked.settings.benchmark_probe_floors == {"cpu_one_core": 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"device_memory_raed": 5},
            "'device_memory_raed' is not a rate that a probe measures: did you mean device_memo",
        ),
        ({"kernel_launch": 5}, "'kernel_launch' is not a rate that a probe measures. Rates: all_reduce, "),
        ({"": 5}, "'' is not a rate that a probe measures. Rates: "),
        ({"peer_coppy_0_to_1": 5}, "'peer_coppy_0_to_1' is not a rate that a probe measures: did you mean peer_copy?"),
        ({"cpu_one_core": True}, "benchmark_probe_floors.cpu_one_core is True: it must be a number."),
        ({"cpu_one_core": float("inf")}, "benchmark_probe_floors.cpu_one_core is not a finite number"),
        ({1: 5}, "A name in benchmark_probe_floors is 1: it must be text (in quotes)."),
    ],
)
def test_what_can_never_be_held_is_refused(given: dict[Any, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        resolve({"benchmark_probe_floors": given})
    assert said in str(refused.value)


def test_floors_without_probes_are_refused() -> None:
    with pytest.raises(
        InputError, match="benchmark_probes is off, but only probes can show whether benchmark_probe_floors"
    ):
        resolve({"benchmark_probe_floors": {"cpu_one_core": 1}, "benchmark_probes": "off"})
    assert resolve({"benchmark_probe_floors": {"peer_copy_0_to_1": "3.5e2"}})


def test_the_rates_are_those_of_the_docs() -> None:
    rows = re.findall(r"^\| (`.*?) \| (\S+) \|", DOCS.read_text(), re.MULTILINE)
    documented = {name for row, unit in rows if unit.endswith("/s") for name in re.findall(r"`([^`]+)`", row)}
    assert {name.replace("_0_to_1", "") for name in documented} == set(rates())
    scopes: tuple[Scope, ...] = ("node", "gpu", "gpus")
    declared = [name for scope in scopes for probe in found.of_scope(scope) for name in getattr(probe, "RATES", ())]
    assert sorted(declared) == sorted(rates())
