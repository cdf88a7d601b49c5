"""Compare the hardware probes with an independent method: each figure of three runs, its spread, and the ratio.

With several GPUs all are probed at the same time, and the first one's figures are shown.
python3 -m benchmarks.probes
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.node.probes import matrix_rate
from benchmark.node.probes.hardware import probe_hardware
from benchmark.node.probes.interfaces import Gpu
from benchmark.records.probes import Measured

RUNS = 3
HEADER = (
    "| figure | median | unit | spread, % | independent method | ratio |\n| --- | ---: | --- | ---: | ---: | ---: |"
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/usr/lib"), help="directory whose largest file is read")
    arguments = parser.parse_args()
    import torch

    gpus = torch.cuda.device_count()
    runs = [probe_hardware(arguments.directory, gpus) for _ in range(RUNS)]
    found: dict[str, list[Measured]] = {}
    for run in runs:
        figures = {**run.node, **(run.gpus[0].figures if gpus else {}), **run.between_gpus}
        for name, figure in figures.items():
            found.setdefault(name, []).append(figure)
        print(*run.notes, sep="\n", end="")
    others = independent(torch) if gpus else {}
    print(torch.cuda.get_device_name(0) if gpus else "no GPU", "torch", torch.__version__, "GPUs", gpus)
    print(HEADER)
    for name, measured in found.items():
        values = [figure.value for figure in measured]
        median = statistics.median(values)
        spread = 100 * (max(values) - min(values)) / median if median else 0.0
        other = others.get(name)
        ratio = f"{other:.4g} | {median / other:.3f}" if other else " | "
        print(f"| {name} | {median:.4g} | {measured[0].unit} | {spread:.1f} | {ratio} |")
    print("do_bench:", {name: f"{value:.4g}" for name, value in others.items() if name not in found})
    print("seconds:", [run.seconds for run in runs])


def independent(torch: Any) -> dict[str, float]:
    """Return the same figures by `triton.testing.do_bench` with separate kernels."""
    import triton

    def seconds(work: Callable[[], Any]) -> float:
        return float(triton.testing.do_bench(work, warmup=50, rep=300, return_mode="median")) / 1e3

    found = _memory(torch, seconds)
    size = matrix_rate.SIZE
    for name, _, product in matrix_rate.products(Gpu(torch, 0, ""), size):
        # Twice in a row, the first time to warm the GPU up: in the pauses of do_bench it cools.
        _looped_s(torch, product)
        found[f"matrix_{name}"] = 2 * size**3 / _looped_s(torch, product) / 1e12
        found[f"matrix_{name}, do_bench"] = 2 * size**3 / seconds(product) / 1e12
    host = torch.ones(2**28, dtype=torch.uint8).pin_memory()
    there = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    found["host_to_device"] = 2**28 / seconds(lambda: there.copy_(host, non_blocking=True)) / 1e9
    found["device_to_host"] = 2**28 / seconds(lambda: host.copy_(there, non_blocking=True)) / 1e9
    return found


def _looped_s(torch: Any, work: Callable[[], Any], within_s: float = 1.0) -> float:
    """Return the seconds of `work` by the host's clock, repeating it for about a second."""
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
