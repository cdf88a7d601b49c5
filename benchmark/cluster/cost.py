"""What a million tokens cost, by the price of a GPU's hour. Formulas: docs/metrics.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmark.cluster.names import some
from benchmark.records import Cost, Group, Metrics, NodeRow
from benchmark.text.figures import figure

SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


def cost_of(per_hour: float, currency: str, metrics: Metrics) -> Cost | None:
    """Return what tokens cost at `per_hour`, the price of all GPUs that answered; None where that is nothing."""
    return cost_at(per_hour, currency, *_rates(metrics)) if per_hour > 0 else None


def cost_together(each: Sequence[tuple[Cost | None, Metrics | None]]) -> Cost | None:
    """Return the cost of nodes together: their prices over their tokens; None where one has no price or other money."""
    known = [(cost, metrics) for cost, metrics in each if cost is not None and metrics is not None]
    if not known or len(known) < len(each) or len({cost.currency for cost, _ in known}) > 1:
        return None
    output, prompt = zip(*(_rates(metrics) for _, metrics in known), strict=True)
    per_hour = math.fsum(cost.per_hour for cost, _ in known)
    return cost_at(per_hour, known[0][0].currency, _sum(output), _sum(prompt))


def cost_words(group: Group, rows: Sequence[NodeRow]) -> str:
    """Return what a million tokens of like nodes cost, the range over them, and who has no price; empty: nobody has."""
    members = [row for row in rows if row.node in set(group.nodes)]
    priced = [row for row in members if row.cost]
    if not priced:
        return ""
    if group.cost is not None:
        words = f"{_tokens(group.cost)} ({group.cost.currency} {figure(group.cost.per_hour)} an hour)"
        return words + _spread(priced, group.cost.currency)
    unpriced = [row.node for row in members if not row.cost]
    without = f"no cost of all together: {some(unpriced)} {'has' if len(unpriced) == 1 else 'have'} no price"
    own = "; ".join(f"{row.node}: {_tokens(row.cost)}" for row in priced[:MOST_NAMED] if row.cost)
    more = f"; and {len(priced) - MOST_NAMED} more" if len(priced) > MOST_NAMED else ""
    return f"{without} (benchmark_cost_per_gpu_hour)\n{own}{more}"


# Nodes whose own cost the summary names; nodes.csv has all.
MOST_NAMED = 5


def _tokens(cost: Cost) -> str:
    return (
        f"{cost.currency} {figure(cost.per_million_output_tokens)} per million output tokens, or "
        f"{figure(cost.per_million_input_tokens)} per million input tokens"
    )


def _spread(priced: Sequence[NodeRow], currency: str) -> str:
    """Return who is cheapest and who dearest, of several."""
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
    """Return what tokens cost at `per_hour`, by how many come a second."""
    output, prompt = (
        per_hour / SECONDS_PER_HOUR / rate * MILLION if rate else None for rate in (output_per_s, input_per_s)
    )
    return Cost(currency=currency, per_hour=per_hour, per_million_output_tokens=output, per_million_input_tokens=prompt)


def _rates(metrics: Metrics) -> tuple[float | None, float | None]:
    """Return output and input tokens per second: over the same time, LoadGen's own where it drove the run."""
    output = metrics.tokens_per_s
    if output is None or not metrics.output_tokens:
        return None, None
    return output, output * (metrics.input_tokens / metrics.output_tokens)


def _sum(rates: Sequence[float | None]) -> float | None:
    """Return the sum; None where one is undefined: its price would be divided by the others' tokens."""
    known = [rate for rate in rates if rate is not None]
    return math.fsum(known) if len(known) == len(rates) else None
