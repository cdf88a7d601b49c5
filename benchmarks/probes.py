"""The hardware probes beside an independent way: each figure from three runs, its spread, and the ratio of the two.

python3 -m benchmarks.probes
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.node.probes import (
    all_reduce,
    cpu,
    device_memory,
    disk,
    host_memory,
    host_transfer,
    launch,
    matrix_rate,
    peers,
    sustained,
)
from benchmark.node.probes.interfaces import Figure, Gpu, Host

RUNS = 3
HEADER = "| figure | median | unit | spread, % | independent way | ratio |\n| --- | ---: | --- | ---: | ---: | ---: |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/usr/lib"), help="whose largest file is read")
    parser.add_argument("--gpus-only", action="store_true", help="only what is between GPUs")
    arguments = parser.parse_args()
    import torch

    found: dict[str, list[Figure]] = {}
    taken: dict[str, list[float]] = {}
    host = Host(arguments.directory, len(os.sched_getaffinity(0)))
    gpu = Gpu(torch, 0, str(torch.cuda.get_device_properties(0).uuid))
    ways: list[tuple[Any, Any]] = [(probe, torch) for probe in (peers, all_reduce)]
    if not arguments.gpus_only:
        of_gpu = (device_memory, matrix_rate, host_transfer, launch, sustained)
        ways = [*((probe, host) for probe in (cpu, host_memory, disk)), *((probe, gpu) for probe in of_gpu), *ways]
    for (probe, place), _ in itertools.product(ways, range(RUNS)):
        began = time.perf_counter()
        for name, figure in probe.measure(place).items():
            found.setdefault(name, []).append(figure)
        torch.cuda.empty_cache()
        taken.setdefault(probe.__name__.rpartition(".")[2], []).append(time.perf_counter() - began)
    others = {} if arguments.gpus_only else independent(torch)
    print(torch.cuda.get_device_name(0), "torch", torch.__version__, "GPUs", torch.cuda.device_count())
    print(HEADER)
    for name, figures in found.items():
        values = [figure.value for figure in figures]
        median = statistics.median(values)
        spread = 100 * (max(values) - min(values)) / median if median else 0.0
        other = others.get(name)
        ratio = f"{other:.4g} | {median / other:.3f}" if other else " | "
        print(f"| {name} | {median:.4g} | {figures[0].unit} | {spread:.1f} | {ratio} |")
    print({name: f"{value:.4g}" for name, value in others.items() if name not in found})
    print("seconds:", {name: [round(one, 1) for one in times] for name, times in taken.items()}, file=sys.stderr)


def independent(torch: Any) -> dict[str, float]:
    """Return the same figures by `triton.testing.do_bench` and kernels of their own."""
    import triton

    def seconds(work: Callable[[], Any]) -> float:
        return float(triton.testing.do_bench(work, warmup=50, rep=300, return_mode="median")) / 1e3

    found = _memory(torch, seconds)
    size = matrix_rate.SIZE
    for name, _, product in matrix_rate.products(Gpu(torch, 0, ""), size):
        # Twice in a row, the first to warm the GPU up: do_bench leaves it pauses, in which it cools.
        _looped_s(torch, product)
        found[f"matrix_{name}"] = 2 * size**3 / _looped_s(torch, product) / 1e12
        found[f"matrix_{name}, do_bench"] = 2 * size**3 / seconds(product) / 1e12
    host = torch.ones(2**28, dtype=torch.uint8).pin_memory()
    there = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    found["host_to_device"] = 2**28 / seconds(lambda: there.copy_(host, non_blocking=True)) / 1e9
    found["device_to_host"] = 2**28 / seconds(lambda: host.copy_(there, non_blocking=True)) / 1e9
    return found


def _looped_s(torch: Any, work: Callable[[], Any], within_s: float = 1.0) -> float:
    """Return the time of `work` by the host's clock, over about a second of it."""
    torch.cuda.synchronize()
    began, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < within_s:
        for _ in range(50):
            work()
        torch.cuda.synchronize()
        done += 50
    return taken / done


def _memory(torch: Any, seconds: Callable[[Callable[[], Any]], float]) -> dict[str, float]:
    count = 2**30
    source = torch.rand(count, device="cuda")
    target = torch.empty_like(source)
    return {
        "device_memory_read": 4 * count / seconds(lambda: torch.sum(source)) / 1e9,
        "device_memory_copy": 8 * count / seconds(lambda: torch.neg(source, out=target)) / 1e9,
    }


if __name__ == "__main__":
    main()
