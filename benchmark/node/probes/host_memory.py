"""Copy speed of the node's CPU memory: weights and everything pinned pass through it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmark.node.probes.interfaces import Figure, Host, Scope

SCOPE: Scope = "node"
RATES = ("host_memory_copy",)
# Larger than the caches of all cores together.
BYTES, MOST_THREADS = 2**29, 16
ROUNDS, SECONDS = 3, 1.0  # minimum rounds, and the time limit for more


def measure(host: Host) -> dict[str, Figure]:
    """Return the rate of copies by several threads (bytes read and written) in GB/s, of the best round, as in STREAM.

    Other work on the node can only make a round slower.
    """
    threads = min(MOST_THREADS, host.cores)
    source = np.ones(BYTES, dtype=np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))

    def round_s(pool: ThreadPoolExecutor) -> float:
        began = time.perf_counter()
        list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))
        return time.perf_counter() - began

    with ThreadPoolExecutor(threads) as pool:
        round_s(pool)  # allocates each page, near its core if the system does that
        rounds: list[float] = []
        while len(rounds) < ROUNDS or sum(rounds) < SECONDS:
            rounds.append(round_s(pool))
        seconds = min(rounds)
    return {"host_memory_copy": Figure(2 * BYTES / seconds / 1e9, "GB/s")}
