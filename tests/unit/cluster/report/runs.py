"""Runs for the report's tests: what nodes would have written, with natural spread, one of them slow and hot."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.cluster.aggregate import Gathered, gather
from benchmark.files import write_record
from benchmark.records import Drift, Energy, Failure, GpuTelemetry, GpuTick, Sample, Telemetry, Tick
from tests.unit.building import HOST, MS, add_node, asked, make_run, often, result_of, sample, write_node

SLOW = "gpu-007"
UNSTEADY, SHARING = "gpu-004", "gpu-009"
QUERIES = 20
LIMITS_MS = {"ttft_ms": 500, "tpot_ms": 50}


def names(count: int) -> list[str]:
    """Return names of nodes: the two of the project's first cluster, or numbered ones."""
    return ["jw2", "jw3"][:count] if count <= 2 else [f"gpu-{number:03}" for number in range(1, count + 1)]


def cluster(
    directory: Path, count: int, queries: int = QUERIES, every_ms: int = 100, measured_often: bool = False
) -> Path:
    """Write a run of `count` nodes with 2 % spread between them; the seventh is 12 % slower, for its heat.

    `every_ms`: the time between two looks at the GPU. `measured_often`: alone first, and then in three repeats; with
    limits of TTFT and TPOT, and a price.
    """
    directory.mkdir(parents=True, exist_ok=True)
    chance = random.Random(count)
    settings: dict[str, Any] = {"benchmark_repeats": 3, "benchmark_solo_first": True} if measured_often else {}
    resolved = asked(queries, **settings)
    if measured_often:
        own = [limit.model_dump() for limit in resolved.profile.limits]
        limits = [*own, *({"metric": f"{name}.p99", "at_most": most} for name, most in LIMITS_MS.items())]
        resolved = asked(queries, {"limits": limits}, benchmark_cost_per_gpu_hour=2.5, **settings)
    make_run(directory, dict.fromkeys(names(count), resolved))
    for name in names(count):
        slow = name == SLOW
        pace = chance.gauss(1, 0.02) * (1.12 if slow else 1)
        samples = _samples(queries, pace, chance)
        ticks = _ticks(samples, chance, slow, every_ms)
        reported = _telemetry(ticks, samples)
        environment = HOST.model_copy(update={"driver": "570.133.20" if slow else "580.82.07"})
        result = result_of(name, resolved, samples, telemetry=reported, environment=environment)
        later, alone = _further(name, queries, pace, count) if measured_often else ([], [])
        result = often(result, later, alone) if measured_often else result
        place = write_node(directory, result, samples, later, alone)
        (place / "telemetry.jsonl").write_text("".join(tick.model_dump_json() + "\n" for tick in ticks))
    return directory


def _further(name: str, queries: int, pace: float, count: int) -> tuple[list[list[Sample]], list[Sample]]:
    """Return what a node did in two repeats more, and alone before.

    The first repeat is the run's median; UNSTEADY is not stable, and SHARING is faster as long as it is alone.
    """
    chance = random.Random(f"{count} {name}")
    unsteady = 1.3 if name == UNSTEADY else 1.0
    later = [_samples(queries, pace * factor, chance) for factor in (1.02 * unsteady, 0.98 / unsteady)]
    return later, _samples(queries, pace * (0.85 if name == SHARING else 1), chance)


def _samples(queries: int, pace: float, chance: random.Random) -> list[Sample]:
    samples, start = [], 0.0
    for index in range(queries):
        latency = 1750 * pace * chance.gauss(1, 0.015)
        samples.append(sample(index, latency, 55 * pace * chance.uniform(0.9, 1.3), 64, start))
        start += latency
    return samples


def _ticks(samples: Sequence[Sample], chance: random.Random, slow: bool, every_ms: int) -> list[Tick]:
    """Return the ticks from 2 s before the window on."""
    end_ms = (samples[-1].completed_ns or 0) // MS
    ticks = []
    for at in range(-2000, end_ms, every_ms):
        busy = at >= 0
        warmth = min(1.0, max(0, at) / 20_000)
        clock = 1440 - (230 if slow and warmth > 0.5 else 0) + chance.choice((0, 0, 0, -15)) if busy else 1440
        gpu = GpuTick(
            index=0,
            utilisation_percent=97 if busy else 0,
            memory_mib=16500,
            sm_clock_mhz=clock,
            power_w=chance.gauss(150 if slow else 158, 3) if busy else 31,
            energy_mj=1_000_000 + (at + 2000) * 150,
            temperature_c=round(48 + warmth * (40 if slow else 18)),
        )
        ticks.append(Tick(t_ns=at * MS, cpu_percent=round(12 + chance.random() * 3, 1), gpus=(gpu,)))
    return ticks


def _telemetry(ticks: Sequence[Tick], samples: Sequence[Sample]) -> Telemetry:
    inside = [tick.gpus[0] for tick in ticks if tick.t_ns >= 0]
    window_s = (samples[-1].completed_ns or 0) / 1e9
    power = sum(gpu.power_w or 0 for gpu in inside) / len(inside)
    joules, clocks = power * window_s, [gpu.sm_clock_mhz or 0 for gpu in inside]
    held = sum(clock < 1300 for clock in clocks) / len(clocks)
    return Telemetry(
        ticks=len(ticks),
        interval_ms=100,
        cost_percent=0.4,
        gpus=(
            GpuTelemetry(
                index=0,
                utilisation_percent=97,
                sm_clock_mhz=sum(clocks) / len(clocks),
                sm_clock_mhz_min=min(clocks),
                power_w=power,
                power_w_max=max(gpu.power_w or 0 for gpu in inside),
                temperature_c_max=max(gpu.temperature_c or 0 for gpu in inside),
                throttled={"sw_thermal_slowdown": held} if held else {},
                joules=joules,
                pcie_generation=4,
                pcie_width=16,
            ),
        ),
        energy=Energy(
            joules=joules,
            window_s=window_s,
            idle_w=31,
            tokens_per_joule=64 * len(samples) / joules,
            joules_per_query=joules / len(samples),
        ),
    )


def partly_failed(directory: Path) -> Path:
    """Write a run of four: one valid, one that misses its limits, one that broke off, one that never answered."""
    directory.mkdir(parents=True, exist_ok=True)
    nodes = dict.fromkeys(("jw2", "jw3", "jw4", "jw5"), asked(QUERIES))
    make_run(directory, nodes)
    add_node(directory, "jw2", nodes["jw2"], [1700.0 + 10 * n for n in range(QUERIES)])
    add_node(directory, "jw3", nodes["jw3"], [2400.0 + 50 * n for n in range(QUERIES)])
    half = [sample(index, 1750, 50, 64, 1750 * index) for index in range(9)]
    broken = result_of(
        "jw4", nodes["jw4"], half, status="failed", stage="measuring", error="CUDA error: an illegal memory access",
        verdict=None,
    )  # fmt: skip
    write_node(directory, broken, half)
    reported = Failure(node="jw5", stage="preflight", reason="Not reachable: nothing answers SSH within 10 s.")
    write_record(directory / "nodes" / "jw5" / "failure.json", reported)
    return directory


HOSTILE = """</style><script>window.harmed = 1</script><img src=x onerror="window.harmed = 1">"""
HOSTILE += "{{ 7 * 7 }}{% raw %}$\\frac{1}{0}$ \x1b[31m\u202e\x07"


def hostile(directory: Path) -> Gathered:
    """Return a run in which every text that a node gives is hostile, and so is a node's name, which no run accepts."""
    gathered = gather(cluster(directory, 9, measured_often=True))
    result, evil, name = gathered.result, HOSTILE, f"{HOSTILE[:40]} {SLOW}"
    broken = [row.model_copy(update={"counted": False, "reason": evil, "group": None}) for row in result.nodes[-1:]]
    reported = result.model_copy(
        update={
            "nodes": (*result.nodes[:-1], *broken),
            "counted": result.counted - 1,
            "problems": (evil,),
            "partial": evil,
            "profile": evil,
            "findings": tuple(f.model_copy(update={"cause": evil, "evidence": (evil,)}) for f in result.findings),
            "drift": (Drift(hardware=evil[:200], fact=evil[:200], values={evil: ("gpu-001",), "": (SLOW,)}),),
        }
    )
    renamed = reported.model_validate_json(reported.model_dump_json().replace(f'"{SLOW}"', json.dumps(name)))
    nodes = []
    for node in gathered.nodes:
        seen = node.result
        assert seen is not None
        assert seen.environment is not None
        environment = seen.environment.model_copy(update={"cpu": evil, "driver": evil, "packages": {evil[:99]: evil}})
        nodes.append(
            replace(
                node,
                node=name if node.node == SLOW else node.node,
                result=seen.model_copy(update={"environment": environment}),
            )
        )
    run = gathered.run.model_copy(update={"command": evil, "versions": {evil[:99]: evil}})
    return Gathered(run, tuple(nodes), renamed)
