"""Time of work on a GPU, by its own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Enough that a few disturbed rounds do not change the median.
ROUNDS = 20
# Seconds for which work at the power limit runs before it is timed, and is timed: at first the clock is higher.
WARM_S, TIMED_S = 0.7, 0.5
# The events' clock has a resolution of half a microsecond: timed work must take much longer.
LEAST_S = 2e-3


def median_s(torch: ModuleType, work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Return the median time of `work` in seconds, between two events on the GPU; short work is repeated in between."""
    for _ in range(3):  # the first runs choose kernels and allocate
        work()
    torch.cuda.synchronize()
    repeats = max(1, round(LEAST_S / max(_once_s(torch, work, 1), 1e-7)))
    return statistics.median(_once_s(torch, work, repeats) for _ in range(rounds)) / repeats


def steady_s(torch: ModuleType, work: Callable[[], Any]) -> float:
    """Return the time of `work` in seconds, run back to back, once the clock has settled."""
    work()
    torch.cuda.synchronize()
    each = max(_once_s(torch, work, 3) / 3, 1e-6)
    _once_s(torch, work, max(1, round(WARM_S / each)))
    repeats = max(1, round(TIMED_S / each))
    return _once_s(torch, work, repeats) / repeats


def _once_s(torch: ModuleType, work: Callable[[], Any], repeats: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
