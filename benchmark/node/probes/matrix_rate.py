"""Matrix multiplication rate of a GPU in each of its precisions: prefill waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmark.node.probes.interfaces import Figure, Gpu, Scope
from benchmark.node.probes.timing import steady_s

SCOPE: Scope = "gpu"
RATES = ("matrix_bfloat16", "matrix_float16", "matrix_float8", "matrix_int8")
SIZE = 8192


def measure(gpu: Gpu) -> dict[str, Figure]:
    """Return the rate of each precision, in TFLOP/s or TOP/s: 2 operations per multiplication, dense, random values."""
    found = {}
    for name, unit, product in products(gpu, SIZE):
        seconds = steady_s(gpu.torch, product)
        found[f"matrix_{name}"] = Figure(2 * SIZE**3 / seconds / 1e12, unit)
    return found


def products(gpu: Gpu, size: int) -> list[tuple[str, str, Callable[[], Any]]]:
    """Return name, unit and product of two square matrices, for each precision that this GPU and this torch support."""
    torch, device = gpu.torch, gpu.device
    one, other = (torch.randn(size, size, device=device) for _ in range(2))
    ways: list[tuple[str, str, Callable[[], Callable[[], Any]]]] = [
        ("bfloat16", "TFLOP/s", lambda: _plain(torch, one.bfloat16(), other.bfloat16())),
        ("float16", "TFLOP/s", lambda: _plain(torch, one.half(), other.half())),
        ("float8", "TFLOP/s", lambda: _float8(torch, one, other)),
        ("int8", "TOP/s", lambda: _int8(torch, one, other)),
    ]
    found = []
    for name, unit, make in ways:
        try:
            product = make()
            product()
            torch.cuda.synchronize()
        except (RuntimeError, AttributeError, NotImplementedError):
            continue  # not supported by this GPU or this torch
        found.append((name, unit, product))
    return found


def _plain(torch: Any, one: Any, other: Any) -> Callable[[], Any]:
    into = torch.empty_like(one)
    return lambda: torch.mm(one, other, out=into)


def _float8(torch: Any, one: Any, other: Any) -> Callable[[], Any]:
    left = one.to(torch.float8_e4m3fn)
    # In column order, as the hardware needs it for the second one.
    right = other.to(torch.float8_e4m3fn).t().contiguous().t()
    scale = torch.ones((), device=one.device)
    return lambda: torch._scaled_mm(
        left, right, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _int8(torch: Any, one: Any, other: Any) -> Callable[[], Any]:
    left, right = ((matrix * 40).clamp(-127, 127).to(torch.int8) for matrix in (one, other))
    right = right.t().contiguous().t()
    return lambda: torch._int_mm(left, right)
