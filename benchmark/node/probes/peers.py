"""How fast the GPUs of a node copy to each other, each pair by itself: a link that is down shows here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import ModuleType

from benchmark.node.probes.interfaces import Figure, Scope

SCOPE: Scope = "gpus"
BYTES, ROUNDS = 2**28, 10


def measure(torch: ModuleType) -> Mapping[str, Figure]:
    """Return the rate of each ordered pair in GB/s, each alone; nothing where there is one GPU."""
    found = {}
    for one, other in itertools.permutations(range(torch.cuda.device_count()), 2):
        source = torch.ones(BYTES, dtype=torch.uint8, device=f"cuda:{one}")
        target = torch.empty(BYTES, dtype=torch.uint8, device=f"cuda:{other}")
        found[f"peer_copy_{one}_to_{other}"] = Figure(BYTES / _median_s(torch, source, target) / 1e9, "GB/s")
    return found


def _median_s(torch: ModuleType, source: object, target: object) -> float:
    times = []
    with torch.cuda.device(source.device):  # type: ignore[attr-defined]
        for _ in range(ROUNDS + 3):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(4):
                target.copy_(source, non_blocking=True)  # type: ignore[attr-defined]
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 4e3)
    return float(sorted(times[3:])[ROUNDS // 2])
