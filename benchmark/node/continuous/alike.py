"""Whether what is to take a part's place computes the same as the part: both are tried on the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmark.node.watch.full_memory import is_full

# Of answers around 1: half precision rounds by less than this, wherever it rounds. Of larger ones it is a share.
TOLERANCE = 0.02

Forward = Callable[..., Any]


def nearest(plain: Forward, ways: Sequence[Forward], *trial: Any) -> Forward | None:
    """Return the way whose answers are nearest to the plain one's; None: all differ by more than rounding does."""
    if (expected := _answer(plain, trial)) is None:
        return None
    found: dict[Forward, float] = {}
    for way in ways:
        if (answer := _answer(way, trial)) is not None and answer.shape == expected.shape:
            found[way] = difference(answer, expected)
    best = min(found, key=lambda way: found[way], default=None)
    return best if best is not None and found[best] <= TOLERANCE else None


def difference(found: Any, expected: Any) -> float:
    """Return by how much two tensors differ at most: of values beyond 1 as a share; infinity where one is NaN."""
    found, expected = found.float(), expected.float()
    return float(((found - expected).abs() / (1 + expected.abs())).max().nan_to_num(torch.inf))


def _answer(way: Forward, trial: Sequence[Any]) -> Any:
    """Return all values of the answer, a tensor or several; None where it is not for such tensors."""
    try:
        answer = way(*trial)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_full(str(error)):
            raise  # it says nothing of the way
        return None
    return torch.cat([one.float().flatten() for one in (answer if isinstance(answer, tuple) else (answer,))])
