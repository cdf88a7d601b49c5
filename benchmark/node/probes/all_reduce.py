"""Speed of an all-reduce over all GPUs of a node (NCCL): tensor parallel serving waits for it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from benchmark.node.probes.interfaces import Figure, Gpus, Scope

SCOPE: Scope = "gpus"
RATES = ("all_reduce",)
# Bytes, and number of repetitions.
LARGE, SMALL = (2**30, 40), (2**14, 400)
WARM_UP = 10
# For the GPUs to find each other: a failed one is not waited for longer.
PATIENCE = timedelta(seconds=30)


def measure(gpus: Gpus) -> Mapping[str, Figure]:
    """Return the bus bandwidth of a large all-reduce in GB/s, and the time of a small one in microseconds.

    Bus bandwidth is NCCL's term: 2 (n - 1) / n times the bytes per second.
    """
    dist = gpus.torch.distributed
    dist.init_process_group(
        "nccl",
        init_method=f"file://{gpus.store}",
        rank=gpus.index,
        world_size=gpus.count,
        timeout=PATIENCE,
        device_id=gpus.torch.device(gpus.device),
    )
    try:
        large_s, small_s = (_median_s(gpus, dist, size, rounds) for size, rounds in (LARGE, SMALL))
    finally:
        dist.destroy_process_group()
    rate = 2 * (gpus.count - 1) / gpus.count * LARGE[0] / large_s / 1e9
    return {"all_reduce": Figure(rate, "GB/s"), "all_reduce_16_kib": Figure(small_s * 1e6, "us")}


def _median_s(gpus: Gpus, dist: Any, size: int, rounds: int) -> float:
    torch = gpus.torch
    values = torch.zeros(size // 2, dtype=torch.bfloat16, device=gpus.device)
    taken = []
    for number in range(WARM_UP + rounds):
        torch.cuda.synchronize()
        dist.barrier()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        dist.all_reduce(values)
        end.record()
        end.synchronize()
        if number >= WARM_UP:
            taken.append(begin.elapsed_time(end) / 1e3)
    return float(statistics.median(taken))
