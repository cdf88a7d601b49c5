"""Merge projections that read the same states: one larger product keeps more of a GPU busy.

An attention's query, key and value projections become one matrix, and so do an MLP's gate and up projections. Memory
use stays the same: the projections' own weights become views of the matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmark.node.continuous.alike import nearest

ATTENTION = ("q_proj", "k_proj", "v_proj")
MLP = ("gate_proj", "up_proj")

Multiply = Callable[[Any, Any, Any], Any]
"""(states, weight, bias): as torch.nn.functional.linear."""


class Matrix:
    """The weights (all rows, size) and bias of several projections, merged."""

    def __init__(self, projections: list[Any]) -> None:
        self.rows = [projection.out_features for projection in projections]
        self.weight = torch.cat([projection.weight.data for projection in projections])
        self.bias = None
        if projections[0].bias is not None:
            self.bias = torch.cat([projection.bias.data for projection in projections])
        for number, projection in enumerate(projections):
            projection.weight.data = self.weight.split(self.rows)[number]
            if self.bias is not None:
                projection.bias.data = self.bias.split(self.rows)[number]


class Shared:
    """The results of an attention's projections of the same states, which are read one after the other."""

    def __init__(self, projections: list[Any], multiply: Multiply) -> None:
        self._matrix, self._multiply = Matrix(projections), multiply
        self._states: Any = None
        self._left: list[Any] = []

    def part(self, number: int, states: Any) -> Any:
        """Return the result of that projection."""
        if states is not self._states:
            whole = self._multiply(states, self._matrix.weight, self._matrix.bias)
            self._states, self._left = states, list(whole.split(self._matrix.rows, dim=-1))
        answer = self._left[number]
        if number == len(self._left) - 1:  # the last one: keep nothing until the next step
            self._states, self._left = None, []
        return answer


def attentions(model: Any, multiply: Multiply) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """Merge each attention's projections; yield each projection with its new `forward`."""
    for module in model.modules():
        if projections := _linear(module, ATTENTION):
            shared = Shared(projections, multiply)
            for number, projection in enumerate(projections):
                yield projection, functools.partial(shared.part, number)


def mlps(model: Any) -> Iterator[Any]:
    """Merge the projections of each MLP that computes what `_mlp` does, and yield it."""
    for module in model.modules():
        projections = _linear(module, MLP)
        if not projections or not hasattr(module, "down_proj") or not hasattr(module, "act_fn"):
            continue
        weight = projections[0].weight
        trial = torch.linspace(-1, 1, 3 * weight.shape[1], dtype=weight.dtype, device=weight.device).view(1, 3, -1)
        plain = functools.partial(type(module).forward, module)
        if nearest(plain, [functools.partial(_mlp, module)], trial) is not None:
            module.merged = Matrix(projections)
            yield module


def _mlp(module: Any, states: Any) -> Any:
    return module.down_proj(module.act_fn(module.gate_proj(states)) * module.up_proj(states))


def _linear(module: Any, names: tuple[str, ...]) -> list[Any]:
    """Return the module's projections with these names; none if one is missing or they differ in kind."""
    found = [getattr(module, name, None) for name in names]
    if any(type(one) is not torch.nn.Linear for one in found):
        return []
    kinds = {(one.in_features, one.bias is None, one.weight.dtype, one.weight.device) for one in found if one}
    return found if len(kinds) == 1 else []
