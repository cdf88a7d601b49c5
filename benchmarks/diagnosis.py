"""Count how often the diagnosis names a node of a clean cluster, and finds a slow one: simulated, fixed seed.

    python -m benchmarks.diagnosis

Every node's prefill speed, decode speed and tokens per joule are drawn independently from a normal distribution with a
standard deviation of 2 %; QPS, tokens/s, TTFT and TPOT follow from them as in a closed loop. "together": one draw for
all of a node's metrics, the hardest case. "few queries": 20 queries with a further spread of 5 % each, so that a node's
measured values are uncertain too. The slow node takes 10 % longer for every query.

The second table also has probes of the hardware, each figure with its own spread. One GPU of one node is 10 % slow: in
all figures of its memory and its matrix products, or only in reading its memory.

The third table is about sweeps: a node has a curve from the samples of every step (64, with a spread of 5 %). Besides
the node's own deviation, each of its steps has a random deviation.
"""

from __future__ import annotations

import argparse
import random
import statistics
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmark.cluster.diagnosis import no_history
from benchmark.cluster.diagnosis.slow import slow_nodes
from benchmark.cluster.diagnosis.slow_gpus import apart, slow_gpus
from benchmark.cluster.results.load import LoadedNode, Measurement, Times
from benchmark.ladder import Rate, Sustained
from benchmark.metrics import distribution
from benchmark.records import Energy, Load, Metrics, NodeResult, QueryCounts, Telemetry
from benchmark.records.probes import GpuProbes, HardwareProbes, Measured
from benchmark.resolve import resolve

SEED = 20261124
TOKENS = 64
# Number of queries and their spread. Two queries without spread stand for many queries.
MANY, FEW = (2, 0.0), (20, 0.05)
TTFT_MS, TPOT_MS, TOKENS_PER_JOULE = 80.0, 30.0, 0.5
SLOW = 1.10
ASKED = NodeResult(
    run_id="simulated",
    node="node",
    status="complete",
    stage="done",
    started_at="2026-11-24T00:00:00+00:00",
    resolved=resolve({"benchmark_profile": "quick"}),
)
SWEPT = ASKED.model_copy(update={"resolved": resolve({"benchmark_profile": "sweep"})})

# Units of the figures and the spread of healthy ones: per GPU, per pair of GPUs, per node.
GPU_FIGURES = {
    **{f"device_memory_{kind}": ("GB/s", 0.01) for kind in ("read", "copy")},
    **{f"matrix_{kind}": ("TFLOP/s", 0.01) for kind in ("bfloat16", "float16", "float8", "int8")},
    **dict.fromkeys(("host_to_device", "device_to_host"), ("GB/s", 0.01)),
    "sustained_matrix_bfloat16": ("TFLOP/s", 0.01),
    **{f"kernel_{kind}": ("us", 0.05) for kind in ("launch", "round_trip")},
}
PAIR = ("GB/s", 0.01)
TOGETHER = {"all_reduce": ("GB/s", 0.01), "all_reduce_16_kib": ("us", 0.05)}
NODE_FIGURES = {
    **{f"cpu_{kind}": ("MB/s", 0.03) for kind in ("one_core", "all_cores")},
    "host_memory_copy": ("GB/s", 0.08),
    "disk_read": ("GB/s", 0.10),
}
# Figures in which a GPU is slow: all that depend on its own memory and clocks, or one.
ALL = tuple(name for name in GPU_FIGURES if name.startswith(("device", "matrix", "sustained")))
ONE = ("device_memory_read",)

# Steps of a sweep: queries in flight, and how many of them are served at once.
LADDER, AT_ONCE, OF_A_STEP = (1, 2, 4, 8, 16, 32), 12, (64, 0.05)
JITTER = 0.01

Speeds = Callable[[random.Random], tuple[float, float, float]]


def independent(spread: float) -> Speeds:
    """Return a function that draws a node's prefill, decode and energy factors independently."""
    return lambda chance: (chance.gauss(1, spread), chance.gauss(1, spread), chance.gauss(1, spread))


def together(spread: float) -> Speeds:
    """Return a function that draws one factor for all three."""

    def drawn(chance: random.Random) -> tuple[float, float, float]:
        factor = chance.gauss(1, spread)
        return factor, factor, factor

    return drawn


def node(name: str, chance: random.Random, speeds: Speeds, queries: tuple[int, float], slow: float = 1.0) -> LoadedNode:
    """Return a node in the form in which it is loaded from its files."""
    prefill, decode, energy = speeds(chance)
    count, differ = queries
    ttft = [TTFT_MS * prefill * slow * chance.gauss(1, differ) for _ in range(count)]
    tpot = [TPOT_MS * decode * slow * chance.gauss(1, differ) for _ in range(count)]
    latency = [first + rest * (TOKENS - 1) for first, rest in zip(ttft, tpot, strict=True)]
    qps = 1000 / statistics.fmean(latency)
    metrics = Metrics(
        queries=QueryCounts(planned=count, completed=count, failed=0, unfinished=0),
        qps=qps,
        tokens_per_s=qps * TOKENS,
        ttft_ms=distribution(ttft),
        tpot_ms=distribution(tpot),
    )
    used = Energy(joules=1, window_s=1, tokens_per_joule=TOKENS_PER_JOULE / energy)
    result = ASKED.model_copy(update={"telemetry": Telemetry(ticks=1, interval_ms=100, cost_percent=0, energy=used)})
    return LoadedNode(name, result, metrics, Times(array("d", latency), array("d", ttft), array("d", tpot)))


def swept(name: str, chance: random.Random, speeds: Speeds, slow: float = 1.0) -> LoadedNode:
    """Return a node with its curve, in the form in which it is loaded from the files of a sweep."""
    prefill, decode, _ = speeds(chance)
    steps = {float(users): _step(users, chance, (prefill * slow, decode * slow)) for users in LADDER}
    first = steps[LADDER[0]]
    return LoadedNode(name, first.result, first.metrics, first.times, steps=steps)


def _step(users: int, chance: random.Random, paces: tuple[float, float]) -> Measurement:
    count, differ = OF_A_STEP
    prefill, decode = (pace * chance.gauss(1, JITTER) for pace in paces)
    wait = max(1.0, users / AT_ONCE)
    ttft = [TTFT_MS * prefill * wait * chance.gauss(1, differ) for _ in range(count)]
    tpot = [TPOT_MS * decode * chance.gauss(1, differ) for _ in range(count)]
    # A query that waits for a place waits for the queries before it: for their first token and all others.
    latency = [first + rest * (TOKENS - 1) * wait for first, rest in zip(ttft, tpot, strict=True)]
    seconds = count / users * statistics.fmean(latency) / 1000
    lasting = Sustained(closed=Rate(seconds, count, count * TOKENS))
    times = Times(array("d", latency), array("d", ttft), array("d", tpot), sustained=lasting)
    metrics = Metrics(
        queries=QueryCounts(planned=count, completed=count, failed=0, unfinished=0),
        tokens_per_s=count * TOKENS / seconds,
        ttft_ms=distribution(ttft),
        tpot_ms=distribution(tpot),
    )
    result = SWEPT.model_copy(update={"load": Load(concurrency=users)})
    return Measurement(result, metrics, times, None, None, None)


def curve_shares(nodes: int, runs: int) -> tuple[float, float]:
    """Return the share of clean sweeps in which any node is named, and of sweeps in which the slow node is named."""
    chance = random.Random(f"{SEED} {nodes} {JITTER}")  # noqa: S311 # chance, not a secret
    false = found = 0
    for _ in range(runs):
        cluster = [swept(f"n{number}", chance, independent(0.02)) for number in range(nodes)]
        false += bool(slow_nodes(cluster, no_history))
        cluster[0] = swept("slow", chance, independent(0.02), SLOW)
        found += "slow" in {one.node.node for one in slow_nodes(cluster, no_history)}
    return false / runs, found / runs


def probed(one: LoadedNode, chance: random.Random, gpus: int, slow: Sequence[str] = ()) -> LoadedNode:
    """Return the node with probes of `gpus` GPUs, the first of them 10 % slow in the figures `slow`."""

    def drawn(figures: Mapping[str, tuple[str, float]], worse: Sequence[str] = ()) -> dict[str, Measured]:
        return {
            name: Measured.model_construct(
                value=1000 * chance.lognormvariate(0, spread) * (0.9 if name in worse else 1), unit=unit
            )
            for name, (unit, spread) in figures.items()
        }

    pairs = {f"peer_copy_{a}_to_{b}": PAIR for a in range(gpus) for b in range(gpus) if a != b}
    found = HardwareProbes.model_construct(
        node=drawn(NODE_FIGURES),
        gpus=tuple(
            GpuProbes.model_construct(
                index=index, name="GPU", uuid="", figures=drawn(GPU_FIGURES, slow if index == 0 else ())
            )
            for index in range(gpus)
        ),
        between_gpus=drawn({**pairs, **TOGETHER}) if gpus > 1 else {},
        notes=(),
        seconds=1.0,
    )
    return replace(one, result=one.result.model_copy(update={"probes": found}) if one.result else None)


def named(cluster: Sequence[LoadedNode]) -> set[tuple[str, int | None]]:
    """Return the nodes, and GPUs of nodes, that the diagnosis names."""
    places = slow_gpus(cluster)
    slow = {(one.node.node, one.place.gpu) for one in places}
    return slow | {(one.node.node, None) for one in slow_nodes(cluster, no_history, apart(places))}


def probe_shares(nodes: int, gpus: int, runs: range) -> tuple[int, int, int]:
    """Count clean runs in which anything is named, and runs that find a GPU slow in all figures, and in one figure.

    Each run has its own seed.
    """
    # A node with one GPU is named itself, not its GPU.
    culprit = ("slow", 0 if gpus > 1 else None)
    false, in_all, in_one = 0, 0, 0
    for run in runs:
        chance = random.Random(f"{SEED} {nodes} {gpus} {run}")  # noqa: S311 # chance, not a secret

        def drawn(name: str, slow: Sequence[str] = (), chance: random.Random = chance) -> LoadedNode:
            return probed(node(name, chance, independent(0.02), MANY), chance, gpus, slow)

        cluster = [drawn(f"n{number}") for number in range(nodes)]
        false += bool(named(cluster))
        in_all += culprit in named([drawn("slow", ALL), *cluster[1:]])
        in_one += culprit in named([drawn("slow", ONE), *cluster[1:]])
    return false, in_all, in_one


def shares(nodes: int, runs: int, speeds: Speeds, queries: tuple[int, float]) -> tuple[float, float]:
    """Return the share of clean runs in which any node is named, and of runs in which the slow node is named."""
    chance = random.Random(f"{SEED} {nodes} {runs}")  # noqa: S311 # chance, not a secret
    false = found = 0
    for _ in range(runs):
        cluster = [node(f"n{number}", chance, speeds, queries) for number in range(nodes)]
        false += bool(slow_nodes(cluster, no_history))
        cluster[0] = node("slow", chance, speeds, queries, SLOW)
        found += any(one.node.node == "slow" for one in slow_nodes(cluster, no_history))
    return false / runs, found / runs


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="simulated runs of 20 nodes; fewer with more nodes")
    runs = parser.parse_args().runs
    print(
        "| nodes | natural spread | runs | clean runs in which a node is named | the node that is 10 % slow is found |"
    )
    print("| ---: | --- | ---: | ---: | ---: |")
    cases: list[tuple[int, str, Speeds, tuple[int, float]]] = [
        *((count, "2 %", independent(0.02), MANY) for count in (2, 3, 5, 20, 200)),
        (20, "2 %, together", together(0.02), MANY),
        (20, "2 %, few queries", independent(0.02), FEW),
        *((20, f"{spread:.1%}", independent(spread), MANY) for spread in (0.005, 0.03, 0.05)),
    ]
    for count, words, speeds, queries in cases:
        number = max(100, min(runs, runs * 20 // count))
        false, found = shares(count, number, speeds, queries)
        print(f"| {count} | {words} | {number:,} | {false:.2%} | {found:.1%} |", flush=True)
    print(
        "\n| nodes | GPUs each | runs | clean runs in which any is named "
        "| the GPU that is 10 % slow is found | 10 % slow in one figure alone |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for count, gpus in ((1, 8), (2, 1), (2, 8), (20, 1), (20, 8)):
        number = max(100, runs // (4 if count * gpus <= 20 else 8))
        wrong, in_all, in_one = (found / number for found in probe_shares(count, gpus, range(number)))
        print(f"| {count} | {gpus} | {number:,} | {wrong:.2%} | {in_all:.1%} | {in_one:.1%} |", flush=True)
    print("\n| nodes that sweep | runs | clean runs in which a node is named | the node that is 10 % slow is found |")
    print("| ---: | ---: | ---: | ---: |")
    for count in (5, 10, 20):
        number = max(100, runs // 4)
        false, seen = curve_shares(count, number)
        print(f"| {count} | {number:,} | {false:.2%} | {seen:.1%} |", flush=True)


if __name__ == "__main__":
    main()
