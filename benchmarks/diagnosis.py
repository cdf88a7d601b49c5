"""How often the diagnosis names a node of a clean cluster, and how often it finds a slow one: simulated, fixed seed.

    python -m benchmarks.diagnosis

Every node's prefill speed, decode speed and tokens per joule differ from its peers's by chance, each on its own
(normal, one standard deviation of 2 %); QPS, tokens/s, TTFT and TPOT follow from them as in a closed loop. "together":
one chance for all of a node's metrics, the hardest case for finding anything. "few queries": 20, each of which differs
by 5 % more, so that what is measured of a node is uncertain too. The slow node takes 10 % longer for every query.
"""

from __future__ import annotations

import argparse
import random
import statistics
from array import array
from collections.abc import Callable

from benchmark.cluster.diagnosis import no_history
from benchmark.cluster.diagnosis.slow import slow_nodes
from benchmark.cluster.results.load import LoadedNode, Times
from benchmark.metrics import distribution
from benchmark.records import Energy, Metrics, NodeResult, QueryCounts, Telemetry
from benchmark.resolve import resolve

SEED = 20261124
TOKENS = 64
# Queries, and by how much they differ: many are as good as a few that do not.
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

Speeds = Callable[[random.Random], tuple[float, float, float]]


def independent(spread: float) -> Speeds:
    """Return what draws a node's prefill, decode and energy factors, each by a chance of its own."""
    return lambda chance: (chance.gauss(1, spread), chance.gauss(1, spread), chance.gauss(1, spread))


def together(spread: float) -> Speeds:
    """Return what draws one factor for all three."""

    def drawn(chance: random.Random) -> tuple[float, float, float]:
        factor = chance.gauss(1, spread)
        return factor, factor, factor

    return drawn


def node(name: str, chance: random.Random, speeds: Speeds, queries: tuple[int, float], slow: float = 1.0) -> LoadedNode:
    """Return a node as it is loaded from its files."""
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


def shares(nodes: int, runs: int, speeds: Speeds, queries: tuple[int, float]) -> tuple[float, float]:
    """Return the share of clean runs in which any node is named, and of runs in which the slow one is."""
    chance = random.Random(f"{SEED} {nodes} {runs}")  # noqa: S311 # chance, not a secret
    false = found = 0
    for _ in range(runs):
        cluster = [node(f"n{number}", chance, speeds, queries) for number in range(nodes)]
        false += bool(slow_nodes(cluster, no_history))
        cluster[0] = node("slow", chance, speeds, queries, SLOW)
        found += any(one.node.node == "slow" for one in slow_nodes(cluster, no_history))
    return false / runs, found / runs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="simulated runs of 20 nodes; with more nodes fewer")
    runs = parser.parse_args().runs
    print("| nodes | natural spread | runs | clean runs in which a node is named | the node 10 % slow is found |")
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


if __name__ == "__main__":
    main()
