"""Fuse a model's small operations, and merge products of the same states.

transformers' code for a layer consists of many small torch operations, each of which is a kernel that reads and writes
the whole batch. The parts that every layer of a Llama-like model has are replaced: norms, the gate of an MLP, the
rotary embedding, and for one token the products too (`layer_kernels`). Where these kernels do not run, torch's own
kernel for norms remains. A replacement must first have computed the same as the original part (`alike`), and is only
used for similar inputs: for another precision, for example, the original part computes as before.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm

from benchmark.errors import SetupError
from benchmark.node.continuous import merged
from benchmark.node.continuous.alike import Forward, nearest
from benchmark.node.continuous.layer_kernels import ACTIVATIONS, LayerKernels, load, missing

ROTARY = "apply_rotary_pos_emb"
# Kinds of norms, as (offset, early) of `LayerKernels.norm`: Llama's, OLMo's, Gemma's.
KINDS = ((0, True), (0, False), (1, False))


def of(model: Any) -> Fused:
    """Find what can be replaced in a model on a GPU."""
    dtype = str(model.dtype).removeprefix("torch.")
    return Fused(model, load(dtype) if missing(dtype) is None else None)


def wanted(fuse: bool | None, device: str, dtype: str) -> bool:
    """Return whether to fuse, given a profile's option `fuse`. Raises SetupError if it is required but impossible."""
    if fuse and device == "cpu":
        raise SetupError("engine_options: fuse: true is not available: it needs a GPU.")
    if fuse and (reason := missing(dtype)) is not None:
        raise SetupError(f"engine_options: fuse: true is not available: {reason}.")
    return fuse is not False and device != "cpu"


class Fused:
    """A model's replaced parts, switched by `on` and `off`. Without `kernels`: what torch has."""

    def __init__(self, model: Any, kernels: LayerKernels | None) -> None:
        self._rotary: dict[Any, tuple[Forward, Forward]] = {}
        multiply = kernels.multiply if kernels else linear
        with torch.no_grad():
            self._modules: list[tuple[Any, Forward]] = [
                *merged.attentions(model, multiply),
                *((module, _mlp(module, kernels)) for module in merged.mlps(model)),
                *_norms(model, kernels),
            ]
            if kernels:
                done = {module for module, _ in self._modules}
                self._modules += [(one, _projection(one, kernels)) for one in _projections(model) if one not in done]
                self._rotary = {home: (plain, _rotary(plain, kernels)) for home, plain in _rotaries(model, kernels)}
        self.names = sorted(
            {type(module).__name__ for module, _ in self._modules} | ({ROTARY} if self._rotary else set())
        )
        """What is replaced."""
        self.kernels = "nvrtc" if kernels else f"torch's ({missing(str(model.dtype).removeprefix('torch.'))})"
        """By what, and if not by our kernels, why."""

    def on(self) -> None:
        """Use the replacements."""
        for module, forward in self._modules:
            module.forward = forward
        for home, (_, fast) in self._rotary.items():
            setattr(home, ROTARY, fast)

    def off(self) -> None:
        """Use the model's own parts again."""
        for module, _ in self._modules:
            vars(module).pop("forward", None)
        for home, (plain, _) in self._rotary.items():
            setattr(home, ROTARY, plain)


def _norms(model: Any, kernels: LayerKernels | None) -> Iterator[tuple[Any, Forward]]:
    """Yield the model's norms, each with its replacement: families have several kinds of norms."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or weight is None or epsilon is None:
            continue
        ways = [functools.partial(_torchs_norm, weight=weight, epsilon=epsilon)]
        if kernels:
            own = functools.partial(kernels.norm, weight=weight, epsilon=epsilon)
            ways = [functools.partial(own, offset=offset, early=early) for offset, early in KINDS] + ways
        trial = torch.linspace(-3, 3, 3 * weight.numel(), dtype=weight.dtype, device=weight.device).view(1, 3, -1)
        plain = functools.partial(type(module).forward, module)
        if (fast := nearest(plain, ways, trial)) is not None:
            yield module, _norm(plain, fast, weight.dtype)


def _norm(plain: Forward, fast: Forward, dtype: torch.dtype) -> Forward:
    """Return a norm for states like those tested: some families pass float32, or more than the states."""

    def normed(states: Any, *more: Any, **named: Any) -> Any:
        known = not more and not named and states.dtype == dtype
        return (fast if known else plain)(states, *more, **named)

    return normed


def _torchs_norm(states: Any, weight: Any, epsilon: float) -> Any:
    return rms_norm(states, (states.shape[-1],), weight, epsilon)


def _mlp(module: Any, kernels: LayerKernels | None) -> Forward:
    """Return the forward of a merged MLP."""
    weight, bias = module.merged.weight, module.merged.bias

    def plain(both: Any) -> Any:
        gate, up = both.chunk(2, dim=-1)
        return module.act_fn(gate) * up

    if kernels:
        gate = torch.linspace(-4, 4, 3 * len(weight) // 2, dtype=weight.dtype, device=weight.device).view(1, 3, -1)
        # Large enough to tell activations that are nearly the kernel's: exact GELU differs from GELU by tanh.
        trial = torch.cat([gate, 256 + 32 * gate], dim=-1)
        numbers = range(len(ACTIVATIONS))
        ways: dict[Forward, int] = {functools.partial(kernels.gated, activation=number): number for number in numbers}
        if (found := nearest(plain, [*ways], trial)) is not None:
            activation = ways[found]
            return lambda states: module.down_proj(kernels.multiply_gated(states, weight, bias, activation))
    return lambda states: module.down_proj(plain(linear(states, weight, bias)))


def _projections(model: Any) -> Iterator[Any]:
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            yield module


def _projection(module: Any, kernels: LayerKernels) -> Forward:
    return lambda states: kernels.multiply(states, module.weight, module.bias)


def _rotary(plain: Forward, kernels: LayerKernels) -> Forward:
    """Return a rotary embedding that uses the kernel if it fits: some rotate part of a head, or in float32."""

    def turned(q: Any, k: Any, cos: Any, sin: Any, *more: Any, **named: Any) -> Any:
        known = not more and not named and kernels.turns(q, k, cos, sin)
        return (kernels.rotary if known else plain)(q, k, cos, sin, *more, **named)

    return turned


def _rotaries(model: Any, kernels: LayerKernels) -> Iterator[tuple[Any, Forward]]:
    """Yield the transformers modules whose attention rotates queries and keys as the kernel does, with replacements."""
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    made = functools.partial(torch.rand, dtype=model.dtype, device=model.device)
    trial = made(1, 3, 4, size).transpose(1, 2), made(1, 3, 2, size).transpose(1, 2), made(1, 3, size), made(1, 3, size)
    for home in {sys.modules[type(one).__module__] for one in model.modules()}:
        plain = getattr(home, ROTARY, None)
        if plain is not None and nearest(plain, [kernels.rotary], *trial):
            yield home, plain
