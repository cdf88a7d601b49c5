"""Kernel launch latency: a slow CPU or a slow link to the GPU shows here, and in every small step."""

from __future__ import annotations

import statistics
import time

from benchmark.node.probes.interfaces import Figure, Gpu, Scope

SCOPE: Scope = "gpu"
ROUNDS, LAUNCHES, SINGLE = 20, 1000, 50


def measure(gpu: Gpu) -> dict[str, Figure]:
    """Return the time per launch of many in a row, and of one launch until its end is known, in microseconds.

    The minimum of all rounds: other work of the CPU can only make one slower.
    """
    torch = gpu.torch
    value = torch.zeros(1, device=gpu.device)

    def launches(count: int) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            value.add_(1)
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    launches(LAUNCHES)
    each = min(launches(LAUNCHES) for _ in range(ROUNDS))
    there_and_back = min(statistics.fmean(launches(1) for _ in range(SINGLE)) for _ in range(ROUNDS))
    return {"kernel_launch": Figure(each * 1e6, "us"), "kernel_round_trip": Figure(there_and_back * 1e6, "us")}
