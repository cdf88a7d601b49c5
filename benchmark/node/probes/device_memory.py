"""Speed of reading a GPU's memory, and of copying within it: decode waits for it."""

from __future__ import annotations

from benchmark.node.probes.interfaces import Figure, Gpu, Scope
from benchmark.node.probes.timing import median_s

SCOPE: Scope = "gpu"
RATES = ("device_memory_read", "device_memory_copy")
# Far larger than any cache; less if memory is scarce.
BYTES, SHARE = 2**32, 8


def measure(gpu: Gpu) -> dict[str, Figure]:
    """Return the rates of a read (bytes read) and of a copy (bytes read and written), in GB/s."""
    torch = gpu.torch
    free, _ = torch.cuda.mem_get_info(gpu.index)
    count = min(BYTES, free // SHARE) // 4 // 1024 * 1024
    source = torch.full((count,), 1.0, dtype=torch.float32, device=gpu.device)
    target = torch.empty_like(source)
    read_s = median_s(torch, lambda: torch.sum(source))
    copy_s = median_s(torch, lambda: target.copy_(source))
    size = source.numel() * 4
    return {
        "device_memory_read": Figure(size / read_s / 1e9, "GB/s"),
        "device_memory_copy": Figure(2 * size / copy_s / 1e9, "GB/s"),
    }
