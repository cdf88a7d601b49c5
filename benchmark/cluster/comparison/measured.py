"""The combined figures of like nodes, each with a function that redraws it."""

from __future__ import annotations

import math
import random
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cluster.arithmetic import node_cost
from benchmark.cluster.comparison.bootstrap import Draw, inflation, percentile_draw, rate_draw, repeats_draw
from benchmark.cluster.cost import cost_together
from benchmark.cluster.diagnosis.aspects import ENERGY, rate_of
from benchmark.cluster.results.load import LoadedNode
from benchmark.metrics import PERCENTILES, SAMPLES_NEEDED, percentile
from benchmark.records.comparison import Outcome

RATES = ("qps", "tokens_per_s")
TIMES = ("latency_ms", "ttft_ms", "tpot_ms")
SHOWN = ("p50", "p99")
COSTS = ("cost_per_million_output_tokens", "cost_per_million_input_tokens")
METRICS = (*RATES, *(f"{times}.{name}" for times in TIMES for name in SHOWN), ENERGY)
HIGHER_IS_BETTER = (*RATES, ENERGY)

# Two repeats say almost nothing about a third: their samples say more.
LEAST_REPEATS = 3
ONE_VALUE = "one value per run, no interval"


@dataclass(frozen=True)
class Figure:
    """A value, the function that redraws it (None: it cannot be judged), and why it cannot be judged."""

    value: float | None
    draw: Draw | None = None
    note: str = ""


def judged(change: float, low: float, high: float, floor: float, *, higher_is_better: bool) -> Outcome:
    """Return better or worse if the whole interval is on that side of zero and the change is at least `floor`."""
    if change == 0:
        return "no difference"
    if abs(change) < floor or low <= 0 <= high:
        return "within noise"
    return "better" if (change > 0) == higher_is_better else "worse"


def figure_of(nodes: Sequence[LoadedNode], metric: str) -> Figure:
    """Return a metric of like nodes, from their repeats if there are enough, else from their samples."""
    repeats = min((len(node.repeats) for node in nodes), default=0)
    if repeats < LEAST_REPEATS:
        return figure_of_samples(nodes, metric)
    each = [figure_of_samples([node.repeats[number] for node in nodes], metric) for number in range(repeats)]
    values = [one.value for one in each if one.value is not None and one.value > 0]
    if len(values) < repeats:
        return Figure(None, note="undefined")
    middle = statistics.geometric_mean(values)
    why = next((one.note for one in each if one.draw is None and one.note != ONE_VALUE), None)
    return Figure(middle, note=why) if why is not None else Figure(middle, repeats_draw(values))


def figure_of_samples(nodes: Sequence[LoadedNode], metric: str) -> Figure:
    """Return a metric of like nodes: the mean per node of a rate, the percentile of all their samples together."""
    if metric in RATES:
        return _rate(nodes, metric)
    if metric == ENERGY:
        return _energy(nodes)
    if metric in COSTS:
        return _cost(nodes, metric.removeprefix("cost_"))
    times, _, name = metric.partition(".")
    return _percentile(nodes, times, name)


def _rate(nodes: Sequence[LoadedNode], metric: str) -> Figure:
    given: list[float | None] = [getattr(node.metrics, metric, None) for node in nodes]
    values = [value for value in given if value is not None]
    if not values or len(values) < len(given):
        return Figure(None, note="undefined")
    value = math.fsum(values) / len(values)
    first = nodes[0].result
    if first is not None and first.resolved.profile.scheduled and rate_of(first) != "searched":
        return Figure(value, note="set by the schedule")
    draws = [_node_rate(node, metric) for node in nodes]
    known = [draw for draw in draws if draw is not None]
    if len(known) < len(nodes):
        return Figure(value, note="too few samples")

    def draw(chance: random.Random) -> float:
        return math.fsum(one(chance) for one in known) / len(known)

    return Figure(value, draw)


def _node_rate(node: LoadedNode, metric: str) -> Draw | None:
    times = node.times
    order = sorted(range(len(times.ended_s)), key=times.ended_s.__getitem__)
    amounts = [times.tokens[number] if metric == "tokens_per_s" else 1.0 for number in order]
    return rate_draw([times.ended_s[number] for number in order], amounts)


def _energy(nodes: Sequence[LoadedNode]) -> Figure:
    used = [node.result.telemetry.energy if node.result and node.result.telemetry else None for node in nodes]
    values = [energy.tokens_per_joule if energy else None for energy in used]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Figure(None, note="undefined")
    return Figure(statistics.fmean(known), note=ONE_VALUE)


def currency_of(nodes: Sequence[LoadedNode]) -> str | None:
    """Return the currencies of the nodes' prices; None if none has a price."""
    return next((cost.currency for node in nodes if (cost := node_cost(node))), None)


def _cost(nodes: Sequence[LoadedNode], field: str) -> Figure:
    together = cost_together([(node_cost(node), node.metrics) for node in nodes])
    if together is None:
        return Figure(None, note="not every node has a price")
    return Figure(getattr(together, field), note="follows tokens/s and the price")


def _percentile(nodes: Sequence[LoadedNode], times: str, name: str) -> Figure:
    each: list[array[float]] = [getattr(node.times, times) for node in nodes]
    ordered = sorted(value for values in each for value in values)
    if not ordered:
        return Figure(None, note="undefined")
    value = percentile(ordered, PERCENTILES[name])
    needed = SAMPLES_NEEDED[name]
    if len(ordered) < needed:
        return Figure(value, note=f"{len(ordered)} samples, {needed} needed")
    more = [inflation(values, value) * len(values) for values in each]
    return Figure(value, percentile_draw(ordered, PERCENTILES[name], sum(more) / len(ordered)))
