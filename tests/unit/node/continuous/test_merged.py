"""Projections of the same states, multiplied at once: what is merged, and what is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from benchmark.node.continuous import merged


def counted(calls: list[int]) -> merged.Multiply:
    def multiply(states: Any, weight: Any, bias: Any) -> Any:
        calls.append(len(weight))
        return linear(states, weight, bias)

    return multiply


@pytest.mark.parametrize("bias", [False, True])
def test_an_attention_multiplies_once(bias: bool) -> None:
    torch.manual_seed(0)
    attention = torch.nn.Module()
    for name, rows in (("q_proj", 8), ("k_proj", 4), ("v_proj", 4)):
        attention.register_module(name, torch.nn.Linear(6, rows, bias=bias))
    projections: list[Any] = [attention.q_proj, attention.k_proj, attention.v_proj]
    states, others = torch.randn(1, 3, 6), torch.randn(1, 3, 6)
    plain = [[projection(one) for projection in projections] for one in (states, others)]
    calls: list[int] = []
    for module, forward in merged.attentions(attention, counted(calls)):
        module.forward = forward
    found = [[projection(one) for projection in projections] for one in (states, others)]
    torch.testing.assert_close(found, plain)
    assert calls == [16, 16]
    # Asked for alone, and in another order.
    torch.testing.assert_close([attention.k_proj(states), attention.q_proj(others)], [plain[0][1], plain[1][0]])


def test_what_is_not_alike_is_left_alone() -> None:
    class Other(torch.nn.Module):  # type: ignore[misc] # torch has no types here
        """Has an MLP's names, and computes something else."""

        def forward(self, states: Any) -> Any:
            return self.down_proj(self.gate_proj(states))

    attention, mlp = torch.nn.Module(), Other()
    for name, size in (("q_proj", 6), ("k_proj", 5), ("v_proj", 6)):
        attention.register_module(name, torch.nn.Linear(size, 4))
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4), torch.nn.Linear(4, 6)
    mlp.act_fn = torch.nn.SiLU()
    assert not list(merged.attentions(attention, linear))
    with torch.no_grad():
        assert not list(merged.mlps(mlp))


def test_an_mlp_that_is_asked_otherwise_is_left_alone() -> None:
    class Asked(torch.nn.Module):  # type: ignore[misc] # torch has no types here
        def forward(self, states: Any, signal: Any) -> Any:
            return self.down_proj(self.act_fn(self.gate_proj(signal)) * self.up_proj(states))

    mlp = Asked()
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4), torch.nn.Linear(4, 6)
    mlp.act_fn = torch.nn.SiLU()
    with torch.no_grad():
        assert not list(merged.mlps(mlp))
