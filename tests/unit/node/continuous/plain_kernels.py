"""What the kernels for layers compute, in torch's own operations: for a machine without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import gelu, linear, silu

from benchmark.node.continuous.layer_kernels import LayerKernels


class PlainKernels(LayerKernels):
    """Rounds where the kernels do. `called`: what was asked for."""

    def __init__(self) -> None:
        self.called: set[str] = set()

    def rotary(self, q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
        self.called.add("rotary")
        half = q.shape[-1] // 2

        def turned(states: Any) -> Any:
            other = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
            return states * cos.unsqueeze(1) + other * sin.unsqueeze(1)

        return turned(q), turned(k)

    def norm(self, states: Any, weight: Any, epsilon: float, offset: float, early: bool) -> Any:
        self.called.add("norm")
        scaled = states.float() * torch.rsqrt(states.float().pow(2).mean(-1, keepdim=True) + epsilon)
        if early:
            scaled = scaled.to(states.dtype).float()
        return (scaled * (weight.float() + offset)).to(states.dtype)

    def gated(self, both: Any, activation: int) -> Any:
        self.called.add("gated")
        gate, up = both.chunk(2, dim=-1)
        return (silu(gate) if activation == 0 else gelu(gate, approximate="tanh")) * up

    def multiply(self, states: Any, weight: Any, bias: Any) -> Any:
        self.called.add("multiply")
        return linear(states, weight, bias)

    def multiply_gated(self, states: Any, weight: Any, bias: Any, activation: int) -> Any:
        self.called.add("multiply_gated")
        return self.gated(linear(states, weight, bias), activation)
