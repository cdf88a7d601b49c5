"""Single nodes of a group that changed by more than usual from run to run, which the sum would hide."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence

from benchmark.cluster.comparison.bootstrap import CONFIDENCE, SEED
from benchmark.cluster.comparison.measured import HIGHER_IS_BETTER, figure_of_samples
from benchmark.cluster.diagnosis.spread import NATURAL_SPREAD
from benchmark.cluster.results.load import LoadedNode
from benchmark.records import NodeChange

METRICS = ("qps", "latency_ms.p50", "ttft_ms.p50", "tpot_ms.p50")
REPLICATES = 300

_quantile = statistics.NormalDist().inv_cdf


def node_changes(before: Sequence[LoadedNode], after: Sequence[LoadedNode], floor: float) -> Iterator[NodeChange]:
    """Yield what is better or worse for each node that is in both runs, if there are several.

    With more nodes the intervals are wider, so that all of them together have 99 % confidence; and a change must be
    larger than the natural spread explains for that many nodes.
    """
    earlier = {node.node: node for node in before}
    pairs = [(earlier[node.node], node) for node in after if node.node in earlier]
    if len(pairs) < 2:
        return
    quantile = _quantile(1 - (1 - CONFIDENCE) / 2 / len(pairs))
    least = max(math.log1p(floor), quantile * math.sqrt(2) * NATURAL_SPREAD)
    for first, second in pairs:
        for metric in METRICS:
            change = _change(first, second, metric, quantile, least)
            if change is not None:
                yield change


def _change(first: LoadedNode, second: LoadedNode, metric: str, quantile: float, least: float) -> NodeChange | None:
    one, other = figure_of_samples([first], metric), figure_of_samples([second], metric)
    if one.draw is None or other.draw is None or not one.value or not other.value:
        return None
    middle = math.log(other.value / one.value)
    if abs(middle) < least:
        return None
    chance = random.Random(SEED)  # noqa: S311 # chance, not a secret
    logs = [math.log(other.draw(chance) / one.draw(chance)) for _ in range(REPLICATES)]
    reach = quantile * statistics.stdev(logs)
    if abs(middle) <= reach:
        return None
    return NodeChange(
        node=second.node,
        metric=metric,
        before=one.value,
        after=other.value,
        change=math.expm1(middle),
        low=math.expm1(middle - reach),
        high=math.expm1(middle + reach),
        outcome="better" if (middle > 0) == (metric in HIGHER_IS_BETTER) else "worse",
    )
