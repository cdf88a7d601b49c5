"""How fast all GPUs of a node add up what each has (NCCL): what tensor parallel serving waits for."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from benchmark.node.probes.interfaces import Figure, Scope

SCOPE: Scope = "gpus"
LARGE, SMALL, ROUNDS = 2**28, 2**14, 20


def measure(torch: ModuleType) -> Mapping[str, Figure]:
    """Return the bus bandwidth of a large sum in GB/s, and the time of a small one in microseconds.

    Bus bandwidth is NCCL's term: 2 (n - 1) / n times the bytes a second. Nothing where there is one GPU.
    """
    count = torch.cuda.device_count()
    if count < 2:
        return {}
    with tempfile.TemporaryDirectory() as place:
        context = torch.multiprocessing.get_context("spawn")
        results = context.SimpleQueue()
        ranks = [context.Process(target=_rank, args=(rank, count, f"{place}/store", results)) for rank in range(count)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        if any(rank.exitcode for rank in ranks):
            raise RuntimeError("the all-reduce of the node's GPUs failed")
        large_s, small_s = results.get()
    rate = 2 * (count - 1) / count * LARGE / large_s / 1e9
    return {"all_reduce": Figure(rate, "GB/s"), "all_reduce_16_kib": Figure(small_s * 1e6, "us")}


def _rank(rank: int, count: int, store: str, results: Any) -> None:
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"file://{store}", rank=rank, world_size=count)
    times = []
    for size in (LARGE, SMALL):
        values = torch.ones(size // 2, dtype=torch.bfloat16, device=f"cuda:{rank}")
        for _ in range(5):
            dist.all_reduce(values)
        taken = []
        for _ in range(ROUNDS):
            values.fill_(1)
            torch.cuda.synchronize()
            dist.barrier()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            dist.all_reduce(values)
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) / 1e3)
        times.append(statistics.median(taken))
    if rank == 0:
        results.put(tuple(times))
    dist.destroy_process_group()
