"""Speed of the node's CPU, one core and all cores, which launches kernels, tokenises and serves."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

from benchmark.node.probes.interfaces import Figure, Host, Scope

SCOPE: Scope = "node"
RATES = ("cpu_one_core", "cpu_all_cores")
# Large enough for hashlib to release the interpreter lock.
BLOCK, SECONDS, ROUNDS = bytes(2**20), 0.3, 3


def measure(host: Host) -> dict[str, Figure]:
    """Return the SHA-256 rate of one core and of all cores, in MB/s, of the best round: others only slow it down."""
    with ThreadPoolExecutor(host.cores) as pool:
        one = max(_rate() for _ in range(ROUNDS))
        every = max(sum(pool.map(lambda _: _rate(), range(host.cores))) for _ in range(ROUNDS))
    return {"cpu_one_core": Figure(one / 1e6, "MB/s"), "cpu_all_cores": Figure(every / 1e6, "MB/s")}


def _rate() -> float:
    done, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < SECONDS:
        hashlib.sha256(BLOCK).digest()
        done += len(BLOCK)
    return done / taken
