"""Which of a node's metrics show how fast it is; that depends on who decides when queries are issued."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.cluster.diagnosis.spread import (
    LEAST_CHANGE,
    MEDIAN_VARIANCE,
    NATURAL_SPREAD,
    Deviation,
    Reading,
    deviations,
    mad,
)
from benchmark.cluster.results.load import LoadedNode
from benchmark.records import NodeResult
from benchmark.verdict import label, unit, value_of

ENERGY = "tokens_per_joule"
# A searched rate is only known to 5 %, so two like nodes may differ by this much more.
SEARCHED_SPREAD = 0.04


@dataclass(frozen=True)
class Aspect:
    """A metric in which a slow node is worse.

    `assumed`: the assumed spread of like nodes; `least`: a smaller difference never counts; `own_unit`: the unit of a
    probe's figure, which its name does not contain.
    """

    metric: str
    higher_is_better: bool
    assumed: float = NATURAL_SPREAD
    least: float = LEAST_CHANGE
    own_unit: str = ""

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return "tokens/J" if self.metric == ENERGY else label(self.metric)

    @property
    def unit(self) -> str:
        """The metric's unit, with a leading space, or nothing."""
        return f" {self.own_unit}" if self.own_unit else unit(self.metric)


_QPS = Aspect("qps", True)
_TOKENS = Aspect("tokens_per_s", True)
_LATENCY = Aspect("latency_ms.p50", False)
_TTFT = Aspect("ttft_ms.p50", False)
_TPOT = Aspect("tpot_ms.p50", False)
_ENERGY = Aspect(ENERGY, True)
ASPECTS = (_QPS, _TOKENS, _LATENCY, _TTFT, _TPOT, _ENERGY)
"""All of them, for pages that show everything."""

_SEARCHED = "searched"
# A trace sets its own times; the dataset's hash identifies it.
REPLAYED = "of the trace"


def scenario_of(result: NodeResult) -> str:
    """Return the scenario; for LoadGen, its own: "Server", "Offline" or "SingleStream"."""
    profile = result.resolved.profile
    return str(profile.scenario_options.get("scenario", profile.scenario))


def rate_of(result: NodeResult) -> str:
    """Return, as text, the rate at which a schedule issued queries; empty without a schedule.

    Nodes with different rates have different queues: comparing their times says nothing about the nodes.
    """
    profile = result.resolved.profile
    if not profile.scheduled:
        return ""
    if profile.replays:
        return REPLAYED
    asked = result.resolved.settings.benchmark_target_qps
    return _SEARCHED if asked == "auto" else f"{result.target_qps:g}"


def aspects_of(result: NodeResult) -> tuple[Aspect, ...]:
    """Return the metrics in which to compare like nodes, the most telling first."""
    if scenario_of(result) == "Offline":
        # All queries are issued at once: latency and TTFT are mostly queueing, which throughput covers.
        return (_QPS, _TOKENS, _TPOT, _ENERGY)
    return aspects_for(rate_of(result))


def aspects_for(rate: str) -> tuple[Aspect, ...]:
    """Return the metrics that show a node's speed when queries are issued at a rate (see `rate_of`)."""
    if rate == _SEARCHED:
        return (Aspect("qps", True, SEARCHED_SPREAD),)
    if rate:
        # The schedule sets queries and tokens per second.
        return (_LATENCY, _TTFT, _TPOT, _ENERGY)
    return (_QPS, _TOKENS, _TTFT, _TPOT, _ENERGY)


def off(known: Mapping[str, Reading], aspect: Aspect, alpha: float) -> dict[str, Deviation]:
    """Return the nodes that are worse than the others by more than chance and `aspect` allow; empty for one node."""
    if len(known) < 2:
        return {}
    found = deviations(
        list(known.values()),
        higher_is_better=aspect.higher_is_better,
        alpha=alpha,
        assumed=aspect.assumed,
        least=aspect.least,
    )
    return {name: far for name, far in zip(known, found, strict=True) if far.off}


def reading(node: LoadedNode, aspect: Aspect) -> Reading | None:
    """Return the node's value and its standard error; None if it is undefined or not above zero."""
    if aspect.metric == ENERGY:
        energy = node.result.telemetry.energy if node.result and node.result.telemetry else None
        value = energy.tokens_per_joule if energy else None
    else:
        value = value_of(node.metrics, aspect.metric) if node.metrics else None
    if value is None or not value > 0:
        return None
    return Reading(value, _error(node, aspect.metric))


def _error(node: LoadedNode, metric: str) -> float:
    """Return the relative standard error from the node's own samples; 0 if it is unknown."""
    if (
        metric in ("qps", "tokens_per_s")
        and node.result
        and scenario_of(node.result) in ("closed_loop", "SingleStream")
    ):
        return rate_error(node.times.latency_ms)
    return median_error(node.times.ascending.get(metric.removesuffix(".p50"), ()) if metric.endswith(".p50") else ())


def rate_error(latencies_ms: Sequence[float]) -> float:
    """Return the relative standard error of the rate of sequential queries, from their latencies."""
    times = np.asarray(latencies_ms)
    if len(times) < 2:
        return 0.0
    # Not statistics.stdev: its fractions take 60 ms for the samples of one MLPerf run.
    return float(np.std(times, ddof=1) / math.sqrt(len(times)) / np.mean(times))


def median_error(times: Sequence[float]) -> float:
    """Return the relative standard error of the median of times in ascending order."""
    middle = float(np.median(times)) if len(times) > 1 else 0.0
    return mad(times) * math.sqrt(MEDIAN_VARIANCE / len(times)) / middle if middle > 0 else 0.0
