"""What a node measured alone compared with what it measured together with the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmark.cluster.diagnosis.spread import LEAST_CHANGE, NATURAL_SPREAD
from benchmark.records import ClusterResult, NodeResult, NodeRow, SoloChange
from benchmark.verdict import value_of
from benchmark.words import percent

# How often a run may name a node although sharing costs nothing.
ALPHA = 0.005
# The metrics that are reported, in this order.
FIGURES = ("qps", "tokens_per_s", "latency_ms.p99", "ttft_ms.p99")


def solo_changes(result: NodeResult) -> tuple[SoloChange, ...]:
    """Return each figure that both measurements have; empty for a node that was not measured alone."""
    if result.solo is None or result.metrics is None:
        return ()
    pairs = [(path, value_of(result.solo.metrics, path), value_of(result.metrics, path)) for path in FIGURES]
    return tuple(
        SoloChange(metric=path, alone=alone, together=together, change=together / alone - 1)
        for path, alone, together in pairs
        if alone and together is not None
    )


def solo_table(result: ClusterResult) -> list[dict[str, Any]]:
    """Return, for each node also measured alone, its QPS alone and together and the change of every figure, as text."""
    rows = []
    for row in result.nodes:
        by_metric = {one.metric: one for one in row.solo}
        if by_metric:
            qps = by_metric.get("qps")
            changes = [percent(by_metric[name].change) if name in by_metric else "-" for name in FIGURES]
            both = {"alone": qps.alone if qps else None, "together": qps.together if qps else None}
            rows.append({"node": row.node, **both, "changes": changes})
    return rows


def losers(rows: Sequence[NodeRow]) -> list[tuple[str, SoloChange]]:
    """Return the nodes that lost more QPS together than repeated measurements of one node differ by, worst first.

    Empty where a schedule sets the rate: a loss does not show in QPS then, and P99s vary too much by chance.
    """
    pairs = [(row.node, one) for row in rows if not row.rate for one in row.solo if one.metric == "qps"]
    if not pairs:
        return []
    by_chance = statistics.NormalDist().inv_cdf(1 - ALPHA / len(pairs)) * math.sqrt(2) * NATURAL_SPREAD
    most = math.expm1(-max(by_chance, math.log1p(LEAST_CHANGE)))
    return sorted((pair for pair in pairs if pair[1].change < most), key=lambda pair: pair[1].change)
