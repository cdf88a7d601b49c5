"""What is held to compute the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark.node.continuous.alike import difference, nearest


def test_the_nearest_way_is_taken_and_none_that_is_far() -> None:
    def near(states: Any) -> Any:
        return states * 1.01

    def same(states: Any) -> Any:
        return states * 1.0

    def refused(states: Any) -> Any:
        raise TypeError("missing an argument")

    trial = torch.linspace(-3, 3, 9)
    assert nearest(same, [near, refused, same], trial) is same
    assert nearest(same, [near], trial) is near
    assert nearest(torch.exp, [near, same], trial) is None
    assert nearest(refused, [same], trial) is None


@pytest.mark.parametrize(("found", "expected", "apart"), [(1.5, 1.0, 0.25), (256.0, 255.0, 1 / 256), (0.5, 0.0, 0.5)])
def test_of_large_values_a_difference_is_a_share(found: float, expected: float, apart: float) -> None:
    assert difference(torch.tensor([0.0, found]), torch.tensor([0.0, expected])) == pytest.approx(apart)
    assert difference(torch.tensor([float("nan")]), torch.zeros(1)) == float("inf")
