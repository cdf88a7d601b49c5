"""Copy speed between the GPUs of a node, one pair at a time: a link that is down shows here."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from typing import Any

from benchmark.node.probes.interfaces import Figure, Gpus, Scope

SCOPE: Scope = "gpus"
RATES = ("peer_copy",)
BYTES, ROUNDS, WARM_UP, COPIES = 2**28, 10, 3, 4


def measure(gpus: Gpus) -> Mapping[str, Figure]:
    """Return the rate of each ordered pair in GB/s, one at a time: the first GPU's process measures them all."""
    if gpus.index:
        return {}
    torch, found = gpus.torch, {}
    for one, other in itertools.permutations(range(gpus.count), 2):
        source = torch.ones(BYTES, dtype=torch.uint8, device=f"cuda:{one}")
        target = torch.empty(BYTES, dtype=torch.uint8, device=f"cuda:{other}")
        found[f"peer_copy_{one}_to_{other}"] = Figure(BYTES / _median_s(torch, source, target) / 1e9, "GB/s")
    return found


def _median_s(torch: Any, source: Any, target: Any) -> float:
    times = []
    with torch.cuda.device(source.device):
        for _ in range(WARM_UP + ROUNDS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(COPIES):
                target.copy_(source, non_blocking=True)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3 / COPIES)
    return float(statistics.median(times[WARM_UP:]))
