"""The cost of a million tokens, from the price of a GPU hour. Formulas: docs/metrics.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmark.cluster.names import some
from benchmark.records import Cost, Group, Metrics, NodeRow
from benchmark.text.figures import figure

SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


def cost_of(per_hour: float, currency: str, metrics: Metrics) -> Cost | None:
    """Return the cost of tokens at `per_hour`, the price of all GPUs that answered; None if that is 0."""
    return cost_at(per_hour, currency, *_rates(metrics)) if per_hour > 0 else None


def cost_together(each: Sequence[tuple[Cost | None, Metrics | None]]) -> Cost | None:
    """Return the cost of nodes together: prices over tokens; None if one has no price or currencies differ."""
    known = [(cost, metrics) for cost, metrics in each if cost is not None and metrics is not None]
    if not known or len(known) < len(each) or len({cost.currency for cost, _ in known}) > 1:
        return None
    output, prompt = zip(*(_rates(metrics) for _, metrics in known), strict=True)
    per_hour = math.fsum(cost.per_hour for cost, _ in known)
    return cost_at(per_hour, known[0][0].currency, _sum(output), _sum(prompt))


def cost_words(group: Group, rows: Sequence[NodeRow]) -> str:
    """Return like nodes' cost of a million tokens, its range, and nodes without a price; empty if none has one."""
    members = [row for row in rows if row.node in set(group.nodes)]
    priced = [row for row in members if row.cost]
    if not priced:
        return ""
    if group.cost is not None:
        words = f"{_tokens(group.cost)} ({group.cost.currency} {figure(group.cost.per_hour)} an hour)"
        return words + _spread(priced, group.cost.currency)
    unpriced = [row.node for row in members if not row.cost]
    without = f"no total cost: {some(unpriced)} {'has' if len(unpriced) == 1 else 'have'} no price"
    own = "; ".join(f"{row.node}: {_tokens(row.cost)}" for row in priced[:MOST_NAMED] if row.cost)
    more = f"; and {len(priced) - MOST_NAMED} more" if len(priced) > MOST_NAMED else ""
    return f"{without} (benchmark_cost_per_gpu_hour)\n{own}{more}"


# Most nodes whose own cost the summary shows; nodes.csv has all.
MOST_NAMED = 5


def _tokens(cost: Cost) -> str:
    return (
        f"{cost.currency} {figure(cost.per_million_output_tokens)} per million output tokens, or "
        f"{figure(cost.per_million_input_tokens)} per million input tokens"
    )


def _spread(priced: Sequence[NodeRow], currency: str) -> str:
    """Return the cheapest and the most expensive of several nodes."""
    each = [
        (row.cost.per_million_output_tokens, row.node)
        for row in priced
        if row.cost and row.cost.per_million_output_tokens is not None
    ]
    if len(each) < 2:
        return ""
    (low, cheapest), (high, dearest) = min(each), max(each)
    return f"; output from {currency} {figure(low)} on {cheapest} to {figure(high)} on {dearest}" if low < high else ""


def cost_at(per_hour: float, currency: str, output_per_s: float | None, input_per_s: float | None) -> Cost:
    """Return the cost of tokens at `per_hour` and at a number of tokens per second."""
    output, prompt = (
        per_hour / SECONDS_PER_HOUR / rate * MILLION if rate else None for rate in (output_per_s, input_per_s)
    )
    return Cost(currency=currency, per_hour=per_hour, per_million_output_tokens=output, per_million_input_tokens=prompt)


def _rates(metrics: Metrics) -> tuple[float | None, float | None]:
    """Return output and input tokens per second over the same time; LoadGen's own where it drove the run."""
    output = metrics.tokens_per_s
    if output is None or not metrics.output_tokens:
        return None, None
    return output, output * (metrics.input_tokens / metrics.output_tokens)


def _sum(rates: Sequence[float | None]) -> float | None:
    """Return the sum; None if a value is undefined: that node's price would be divided by the others' tokens."""
    known = [rate for rate in rates if rate is not None]
    return math.fsum(known) if len(known) == len(rates) else None
