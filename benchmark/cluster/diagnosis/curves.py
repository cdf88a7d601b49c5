"""How fast a node is over its whole curve, for comparing nodes that measured a ladder of loads.

Each figure is the geometric mean over the steps that all nodes have. A single step may be off by chance; a slow node is
slow in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmark.cluster.diagnosis.aspects import Aspect, median_error, rate_error
from benchmark.cluster.diagnosis.spread import Reading
from benchmark.cluster.results.load import LoadedNode, Measurement
from benchmark.cluster.sweep import step_of, steps_of
from benchmark.verdict import CURVE, value_of

ASPECTS = (
    Aspect(f"{CURVE}tokens_per_s", True),
    Aspect(f"{CURVE}ttft_ms.p50", False),
    Aspect(f"{CURVE}tpot_ms.p50", False),
)


def curve_readings(nodes: Sequence[LoadedNode], aspect: Aspect) -> dict[str, Reading]:
    """Return, for nodes with the figure in all common steps, its mean over these and the standard error."""
    each = {node.node: steps_of(node) for node in nodes}
    common = [step for step in next(iter(each.values()), {}) if all(step in steps for steps in each.values())]
    found = {}
    for name, steps in each.items():
        readings = [_reading(steps[step], aspect.metric.removeprefix(CURVE)) for step in common]
        known = [one for one in readings if one is not None]
        if known and len(known) == len(readings):
            mean = math.exp(math.fsum(math.log(one.value) for one in known) / len(known))
            found[name] = Reading(mean, math.hypot(*(one.error for one in known)) / len(known))
    return found


def _reading(measured: Measurement, metric: str) -> Reading | None:
    step, times = step_of(measured), measured.times
    if step is None:
        return None
    if metric == "tokens_per_s":
        value, error = step.tokens_per_s, rate_error(times.latency_ms)
    else:
        value, error = value_of(step.metrics, metric), median_error(times.ascending[metric.removesuffix(".p50")])
    return Reading(value, error) if value is not None and value > 0 else None
