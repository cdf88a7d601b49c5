"""Transfer speed between a GPU and the host's memory: loading and PCIe faults show here."""

from __future__ import annotations

from benchmark.node.probes.interfaces import Figure, Gpu, Scope
from benchmark.node.probes.timing import median_s

SCOPE: Scope = "gpu"
RATES = ("host_to_device", "device_to_host")
BYTES = 2**28


def measure(gpu: Gpu) -> dict[str, Figure]:
    """Return the rates of both directions with pinned memory, in GB/s."""
    torch = gpu.torch
    host = torch.empty(BYTES, dtype=torch.uint8, pin_memory=True)
    host.fill_(1)
    there = torch.empty(BYTES, dtype=torch.uint8, device=gpu.device)
    to_s = median_s(torch, lambda: there.copy_(host, non_blocking=True), rounds=10)
    from_s = median_s(torch, lambda: host.copy_(there, non_blocking=True), rounds=10)
    return {
        "host_to_device": Figure(BYTES / to_s / 1e9, "GB/s"),
        "device_to_host": Figure(BYTES / from_s / 1e9, "GB/s"),
    }
