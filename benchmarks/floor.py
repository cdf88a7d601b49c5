"""Measure the limits of a device: how fast it copies and multiplies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Floor:
    """Measured limits of a device, and what they mean for a model."""

    copy_gb_s: float
    """Gigabytes read and written per second when copying."""
    matmul_tflop_s: float
    weight_bytes: int
    """Bytes read for one token: all weights except the table of input embeddings."""
    weights: int

    @property
    def tpot_ms(self) -> float:
        """The shortest possible time per output token of a single query: reading the weights once."""
        return self.weight_bytes / (self.copy_gb_s * 1e9) * 1e3

    def tokens_per_s(self, input_tokens: float, output_tokens: float) -> float:
        """The highest possible output tokens/s: two operations per weight and token of prompts and answers."""
        per_output_token = 2 * self.weights * (input_tokens + output_tokens) / output_tokens
        return self.matmul_tflop_s * 1e12 / per_output_token


def measure(model: Any, device: str) -> Floor:
    """Measure the device that holds the model, in the model's precision."""
    import torch

    large = device != "cpu"
    source = torch.empty(2**30 if large else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    size = 8192 if large else 512
    one, other = (torch.randn(size, size, dtype=model.dtype, device=device) for _ in range(2))
    matmul_s = _best_s(lambda: torch.matmul(one, other), device)
    embeddings = model.get_input_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    weights = sum(parameter.numel() for parameter in model.parameters()) - (0 if tied else embeddings)
    return Floor(
        copy_gb_s=2 * source.numel() / copy_s / 1e9,
        matmul_tflop_s=2 * size**3 / matmul_s / 1e12,
        weight_bytes=weights * model.dtype.itemsize,
        weights=weights,
    )


def _best_s(work: Callable[[], Any], device: str, rounds: int = 10) -> float:
    import torch

    def done() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    taken = []
    for _ in range(3):  # the first runs compile and allocate
        work()
    for _ in range(rounds):
        done()
        began = time.perf_counter()
        work()
        done()
        taken.append(time.perf_counter() - began)
    return min(taken)
