"""Loads, limits on a ladder of loads, and a node's sweep in words."""

from __future__ import annotations

from benchmark.profiles import Limit, Sweep
from benchmark.records import Load, NodeResult, Repeat
from benchmark.repeats import own_choice, repeat_of
from benchmark.verdict import label, unit, value_of
from benchmark.words import one_of


def at_load(sweep: Sweep, step: float, device: str) -> str:
    """Return a load in words; `device`: what the node computes on."""
    return f"{step:g} in flight on each {one_of(device)}" if sweep.concurrency else f"{step:.0%} of a burst's rate"


def limit_words(limit: Limit) -> str:
    """Return a limit in words: "P99 TTFT at most 500 ms"."""
    bound, value = ("at most", limit.at_most) if limit.at_most is not None else ("at least", limit.at_least)
    return f"{label(limit.metric)} {bound} {value:g}{unit(limit.metric)}"


def sweep_words(result: NodeResult) -> str:
    """Return a line for each step of a sweep, and why there are no more; empty without a sweep.

    Rates are of whole steps: those of the curve, until the last query's issue, need the samples, which are not here.
    """
    sweep = result.resolved.profile.sweep
    if sweep is None:
        return ""
    device = result.resolved.settings.benchmark_device
    lines = [
        f"{at_load(sweep, one.load.step, device)}: {_rate(one.metrics.tokens_per_s)} tokens/s, "
        f"{_rate(value_of(one.metrics, 'latency_ms.p99'))} ms P99 latency"
        for one in _each(result)
        if one.load and one.metrics
    ]
    chosen = repeat_of(result, own_choice(result)).load
    below = "Below is the lowest load with nearly the highest tokens/s:"
    of_step = [f"{below} {at_load(sweep, chosen.step, device)}."] if chosen else []
    whole = ["Rates of whole steps, including the last answers, which the cluster's curve excludes:"] if lines else []
    return "\n".join([*whole, *lines, *([result.sweep_ended] if result.sweep_ended else []), *of_step])


def _each(result: NodeResult) -> list[NodeResult | Repeat]:
    return [result, *result.repeats]


def load_words(load: Load, device: str) -> str:
    """Return the load in words, and where times count from; `device`: what the node computes on."""
    if load.concurrency is None:
        return f"{_rate(load.rate)} queries/s, which is {load.share or 0:.0%} of what a burst reached"
    return (
        f"{load.concurrency} in flight on each {one_of(device)}, a closed loop: without a schedule, times count from "
        "the previous answer"
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
