"""What the kernels for layers compute, in torch's own operations: for a machine without a GPU."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import torch
from torch.nn.functional import gelu, linear, silu

from benchmark.node.continuous.layer_kernels import LayerKernels


class PlainKernels(LayerKernels):
    """Rounds where the kernels do, and refuses what they refuse. `called`: what was asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        # Each method first looks at its tensors as it does on a GPU, and starts nothing.
        super().__init__(Mock(launch=self._take), dtype)
        self.called: set[str] = set()

    def _take(self, name: str, blocks: int, threads: int, *arguments: Any) -> None:
        """Take what a kernel would take for values of its precision, whatever they are."""
        kinds = {one.dtype for one in arguments if isinstance(one, torch.Tensor) and one.is_floating_point()}
        assert kinds == {self._dtype}, (name, kinds)
        assert blocks > 0, name

    def rotary(self, q: Any, k: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
        super().rotary(q, k, cos, sin)
        self.called.add("rotary")
        half = q.shape[-1] // 2

        def turned(states: Any) -> Any:
            other = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
            return states * cos.unsqueeze(1) + other * sin.unsqueeze(1)

        return turned(q), turned(k)

    def norm(self, states: Any, weight: Any, epsilon: float, offset: float, early: bool) -> Any:
        super().norm(states, weight, epsilon, offset, early)
        self.called.add("norm")
        scaled = states.float() * torch.rsqrt(states.float().pow(2).mean(-1, keepdim=True) + epsilon)
        if early:
            scaled = scaled.to(states.dtype).float()
        return (scaled * (weight.float() + offset)).to(states.dtype)

    def gated(self, both: Any, activation: int) -> Any:
        super().gated(both, activation)
        self.called.add("gated")
        gate, up = both.chunk(2, dim=-1)
        return (silu(gate) if activation == 0 else gelu(gate, approximate="tanh")) * up

    def multiply(self, states: Any, weight: Any, bias: Any) -> Any:
        super().multiply(states, weight, bias)
        self.called.add("multiply")
        return linear(states, weight, bias)

    def multiply_gated(self, states: Any, weight: Any, bias: Any, activation: int) -> Any:
        super().multiply_gated(states, weight, bias, activation)
        self.called.add("multiply_gated")
        return self.gated(linear(states, weight, bias), activation)
