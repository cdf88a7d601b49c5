"""Check whether a replacement computes the same as the original part, by running both on the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmark.node.watch.full_memory import is_full

# For values around 1: half precision rounds by less than this, at every place. For larger values it is relative.
TOLERANCE = 0.02

Forward = Callable[..., Any]


def nearest(plain: Forward, ways: Sequence[Forward], *trial: Any) -> Forward | None:
    """Return the way with the answers nearest to the plain ones; None: all differ by more than rounding explains."""
    if (expected := _answer(plain, trial)) is None:
        return None
    found: dict[Forward, float] = {}
    for way in ways:
        if (answer := _answer(way, trial)) is not None and answer.shape == expected.shape:
            found[way] = difference(answer, expected)
    best = min(found, key=lambda way: found[way], default=None)
    return best if best is not None and found[best] <= TOLERANCE else None


def difference(found: Any, expected: Any) -> float:
    """Return the largest difference between two tensors, relative for values beyond 1; infinity if one is NaN."""
    found, expected = found.float(), expected.float()
    return float(((found - expected).abs() / (1 + expected.abs())).max().nan_to_num(torch.inf))


def _answer(way: Forward, trial: Sequence[Any]) -> Any:
    """Return all values of the answer, one tensor or several; None if the way does not support such tensors."""
    try:
        answer = way(*trial)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_full(str(error)):
            raise  # not the way's fault
        return None
    return torch.cat([one.float().flatten() for one in (answer if isinstance(answer, tuple) else (answer,))])
