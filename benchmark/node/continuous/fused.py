"""Compile the small operations between the large ones: each of them alone would read and write the whole batch again.

What is compiled are the parts that every layer of a Llama-like model has, so that the first layer's code serves all:
the norms, the MLP and the rotary embedding. The number of tokens is left open. Attention and cache stay as they are.

A query alone has one token a step, and then multiplying is nothing but reading the weights: what multiplies is compiled
for that number too, as code that reads faster than a library for matrices does. Products of the same states become one
(`merged`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any, Literal

from benchmark.errors import SetupError
from benchmark.node.continuous import merged

ROTARY = "apply_rotary_pos_emb"
How = Literal["compiled", "torch"]
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@functools.cache
def missing(device: str) -> str | None:
    """Return why nothing can be compiled on this machine, as the end of a sentence; None: it can."""
    import torch

    try:
        torch.compile(_trial, dynamic=True)(torch.ones(3, device=device))
    except Exception as error:  # mostly there is no C compiler, or Python's headers are not there
        return f"torch cannot compile here ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
    return None


def wanted(fuse: bool | Literal["torch"] | None, device: str) -> How | None:
    """Return how to fuse, where a profile asks for `fuse`; None: not. Raises SetupError where it must and cannot."""
    if fuse is False or (fuse is not True and device == "cpu"):
        return None
    if fuse == "torch":
        return "torch"
    reason = missing(device)
    if fuse and reason is not None:
        raise SetupError(f"engine_options: fuse: true is not to be had: {reason}.")
    return "compiled" if reason is None else None


def _trial(states: Any) -> Any:
    return states * 2 + 1


class Fused:
    """A model's small operations, compiled at their first use; `on` and `off` as often as one likes.

    With "torch" only its norms, by the kernel that torch has for them: one in the place of seven.
    """

    def __init__(self, model: Any, how: How = "compiled") -> None:
        import torch

        self._modules: list[tuple[Any, Any]] = []
        self._rotary: dict[Any, tuple[Any, Any]] = {}
        linear = torch.nn.functional.linear
        if how == "torch":
            self._modules += [*_torchs_norms(model), *merged.attentions(model, linear)]
            self._modules += [(module, merged.mlp.__get__(module)) for module in merged.mlps(model)]
            self.names = sorted({type(module).__name__ for module, _ in self._modules})
            return
        mlps = set(merged.mlps(model))
        self._modules += merged.attentions(model, _where_alone(linear))
        done = {module for module, _ in self._modules}
        compiled: dict[Any, Any] = {}
        names = set()
        for name, module in model.named_modules():
            kind = type(module)
            if module in done:
                names.add(kind.__name__)
                continue
            home = sys.modules[kind.__module__]
            if kind.__name__.endswith(("RMSNorm", "MLP")) or name.endswith(PROJECTIONS):
                plain = merged.mlp if module in mlps else kind.forward
                if plain not in compiled:
                    compiled[plain] = _compile(kind, plain)
                self._modules.append((module, compiled[plain].__get__(module)))
                names.add(kind.__name__)
            if kind.__name__.endswith("Attention") and hasattr(home, ROTARY) and home not in self._rotary:
                plain = getattr(home, ROTARY)
                self._rotary[home] = plain, torch.compile(_by_token(plain), dynamic=True)
                names.add(ROTARY)
        self.names = sorted(names)
        """What is fused."""

    def on(self) -> None:
        """Have the model use what is compiled."""
        for module, forward in self._modules:
            module.forward = forward
        for home, (_, fast) in self._rotary.items():
            setattr(home, ROTARY, fast)

    def off(self) -> None:
        """Have the model be as it was."""
        for module, _ in self._modules:
            vars(module).pop("forward", None)
        for home, (plain, _) in self._rotary.items():
            setattr(home, ROTARY, plain)


def _torchs_norms(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the model's norms that do what torch's kernel does, each with it; families have norms of many kinds."""
    import torch

    for module in model.modules():
        weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
        if not type(module).__name__.endswith("RMSNorm") or weight is None or epsilon is None:
            continue
        fast = functools.partial(_norm, weight=weight, epsilon=epsilon)
        trial = torch.linspace(-3, 3, 3 * weight.numel(), dtype=weight.dtype, device=weight.device).view(1, 3, -1)
        with torch.inference_mode():
            if torch.allclose(fast(trial).float(), type(module).forward(module, trial).float(), 0.02, 0.02):
                yield module, fast


def _norm(states: Any, weight: Any, epsilon: float) -> Any:
    import torch

    return torch.nn.functional.rms_norm(states, (states.shape[-1],), weight, epsilon)


def _compile(kind: Any, plain: Any) -> Any:
    """Return a compiled `forward` for modules of that kind, (batch, tokens, size) each."""
    import torch

    alone = torch.compile(plain, dynamic=False, options={"coordinate_descent_tuning": True})
    if kind.__name__.endswith("RMSNorm"):
        return torch.compile(plain, dynamic=True)
    # One projection has nothing to be fused with.
    many = plain if issubclass(kind, torch.nn.Linear) else torch.compile(plain, dynamic=True)

    def forward(self: Any, states: Any) -> Any:
        return alone(self, states) if states.shape[:2].numel() == 1 else many(self, states)

    return forward


def _where_alone(linear: Any) -> Any:
    """Return the product, compiled for a token alone."""
    import torch

    alone = torch.compile(linear, dynamic=False, options={"coordinate_descent_tuning": True})

    def multiply(states: Any, weight: Any, bias: Any) -> Any:
        return (alone if states.shape[:2].numel() == 1 else linear)(states, weight, bias)

    return multiply


def _by_token(rotary: Any) -> Any:
    """Return the same for queries and keys as they lie in memory, token by token."""

    def rotate(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
        if unsqueeze_dim != 1:
            raise ValueError("Queries and keys are expected to be (batch, heads, tokens, size).")
        q, k = rotary(q.transpose(1, 2), k.transpose(1, 2), cos, sin, unsqueeze_dim=2)
        return q.transpose(1, 2), k.transpose(1, 2)

    return rotate
