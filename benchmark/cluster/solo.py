"""What a node measured alone beside what it measured together with the others."""

from __future__ import annotations

from benchmark.records import NodeResult, SoloChange
from benchmark.verdict import value_of

# What is told of a node, in this order.
FIGURES = ("qps", "tokens_per_s", "latency_ms.p99", "ttft_ms.p99")


def solo_changes(result: NodeResult) -> tuple[SoloChange, ...]:
    """Return each figure that both measurements have; nothing for a node that was not measured alone."""
    if result.solo is None or result.metrics is None:
        return ()
    pairs = [(path, value_of(result.solo.metrics, path), value_of(result.metrics, path)) for path in FIGURES]
    return tuple(
        SoloChange(metric=path, alone=alone, together=together, change=together / alone - 1)
        for path, alone, together in pairs
        if alone and together is not None
    )
