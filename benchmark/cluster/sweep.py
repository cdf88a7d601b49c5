"""The curves of a sweep: of each node, and of the counted nodes of a group that measured a step together.

One step stands for the run wherever a single figure is needed, as one repeat does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark import profiles
from benchmark.cluster.arithmetic import gpus_of
from benchmark.cluster.cost import cost_at
from benchmark.cluster.goodput_sum import together
from benchmark.cluster.results.load import LoadedNode, Measurement, load_node
from benchmark.curves import crossing, enough, front, knee
from benchmark.ladder import Step
from benchmark.metrics import per_joule, pooled_distribution
from benchmark.records import Cost, Curve, CurvePoint, Curves, Distribution, Group, RunRecord
from benchmark.records.sweep import Place
from benchmark.verdict import value_of
from benchmark.words import one_of

_POOLED = ("latency_ms", "ttft_ms", "tpot_ms")


def swept(node: LoadedNode) -> profiles.Sweep | None:
    """Return the ladder that the node was asked to measure; None: a single load, or unknown."""
    known = [node.result] if node.result else [one.result for one in node.earlier]
    return known[-1].resolved.profile.sweep if known else None


def steps_of(node: LoadedNode) -> dict[float, Measurement]:
    """Return the steps that the node completed, lowest load first; of several attempts, the last one's."""
    if node.steps:
        return dict(node.steps)
    if swept(node) is None:
        return {}
    found = list(node.earlier)
    if node.result is not None and node.result.load is not None:
        first = node.result.model_copy(update={"repeats": ()})
        found.append(
            Measurement(first, node.metrics, node.times, node.time_series, node.clock, node.goodput, node.samples)
        )
    found += node.later
    by_step = {one.result.load.step: one for one in found if one.result.load is not None}
    return dict(sorted(by_step.items()))


def step_of(measured: Measurement) -> Step | None:
    """Return the figures that decide how a ladder continues; None if a step has none."""
    load, metrics = measured.result.load, measured.metrics
    return None if load is None or metrics is None else Step(load, metrics, measured.times.sustained)


def at_step(node: LoadedNode, step: float) -> LoadedNode:
    """Return the node as if that step were its only measurement; unchanged if it is not counted or lacks the step."""
    steps = steps_of(node)
    chosen = steps.get(step) if node.counted else None
    if chosen is None:
        return replace(node, later=(), earlier=(), steps=steps)
    measured = ("result", "metrics", "times", "time_series", "clock", "goodput", "samples")
    fields = {name: getattr(chosen, name) for name in measured}
    return replace(node, later=(), earlier=(), steps=steps, **fields)


def chosen_step(nodes: Sequence[LoadedNode]) -> float | None:
    """Return the lowest step with nearly the highest tokens/s that all counted nodes have; None without a sweep.

    Nearly: within `least_growth`. Beyond the knee rates differ only by chance, but latencies by a multiple.
    """
    counted = [(sweep, steps_of(node)) for node in nodes if node.counted and (sweep := swept(node))]
    each = [steps for _, steps in counted]
    common = [step for step in (each[0] if each else ()) if all(step in steps for steps in each)]
    if not common:
        return None
    rates = [_rate([steps[step] for steps in each], "tokens_per_s") for step in common]
    chosen = enough(common, rates, counted[0][0].least_growth)
    return common[0] if chosen is None else chosen


def at_common_step(
    before: Sequence[LoadedNode], after: Sequence[LoadedNode]
) -> tuple[list[LoadedNode], list[LoadedNode]]:
    """Return the nodes of two sweeps at one step that all have, the one chosen in the earlier run; others unchanged."""
    both = [*before, *after]
    step = chosen_step(before)
    if step is None or not all(step in steps_of(node) for node in both):
        step = next((one for one in steps_of(both[0]) if all(one in steps_of(node) for node in both)), None)
    if step is None:
        return list(before), list(after)
    return [at_step(node, step) for node in before], [at_step(node, step) for node in after]


@dataclass(frozen=True)
class StepsLeft:
    """What a further attempt at a sweep must do. `bursts_qps`: the burst's QPS of nodes with a ladder of rates."""

    first_step: int
    bursts_qps: Mapping[str, float]


def steps_left(run_dir: Path, run: RunRecord, nodes: Collection[str]) -> StepsLeft:
    """Return the step, from 1, at which a further attempt at these nodes begins: the first that one of them lacks.

    They continue together, so the others measure again what one lacks; shares stay shares of the same rate.
    """
    firsts: list[int] = []
    bursts: dict[str, float] = {}
    for name in nodes:
        sweep = run.nodes[name].profile.sweep
        if sweep is None:
            return StepsLeft(1, {})
        there = steps_of(load_node(run_dir, run, name))
        lacking = [number for number, step in enumerate(sweep.steps, start=1) if step not in there]
        firsts.append(min([*lacking, len(sweep.steps)]))
        load = next((one.result.load for one in there.values()), None)
        if load and load.rate and load.share:
            bursts[name] = load.rate / load.share
    return StepsLeft(min(firsts, default=1), bursts)


def curves_of(nodes: Sequence[LoadedNode], groups: Sequence[Group]) -> Curves | None:
    """Return the curves of a sweep, from the nodes with all their steps; None without a sweep."""
    chosen = chosen_step(nodes)
    by_name = {node.node: node for node in nodes if steps_of(node)}
    if not by_name:
        return None
    found: list[Curve] = []
    for number, group in enumerate(groups):
        members = [by_name[name] for name in group.nodes if name in by_name]
        if members and (sweep := swept(members[0])) is not None:
            found.append(_curve(_Of(group.label[:200], "group", number), sweep, members))
    group_of = {name: number for number, group in enumerate(groups) for name in group.nodes}
    for name, node in by_name.items():
        if (sweep := swept(node)) is not None:
            found.append(_curve(_Of(name, "node", group_of.get(name)), sweep, [node]))
    sweep = next(sweep for node in by_name.values() if (sweep := swept(node)))
    return Curves(
        by="concurrency" if sweep.concurrency else "rate",
        per=place_of(by_name.values()),
        chosen=chosen,
        curves=tuple(found),
    )


def place_of(nodes: Iterable[LoadedNode]) -> Place:
    """Return what figures are per: "GPU", or "replica" if no node has a GPU."""
    known = [one for node in nodes for one in (node.result, *(step.result for step in node.earlier)) if one]
    return one_of("cuda" if any(one.resolved.settings.benchmark_device == "cuda" for one in known) else "cpu")


@dataclass(frozen=True)
class _Of:
    name: str
    kind: str
    group: int | None


def _curve(of: _Of, sweep: profiles.Sweep, nodes: Sequence[LoadedNode]) -> Curve:
    each = [steps_of(node) for node in nodes]
    loads = sorted({step for steps in each for step in steps})
    measured = [[steps[load] for steps in each if load in steps] for load in loads]
    points = [point_of(load, those) for load, those in zip(loads, measured, strict=True)]
    rates = [point.tokens_per_s_per_gpu for point in points]
    best = front([(point.tokens_per_s_per_user, point.tokens_per_s_per_gpu) for point in points])
    ended = {node.result.sweep_ended for node in nodes if node.result and node.result.sweep_ended}
    crossings = [crossing(limit, loads, [_value(those, limit.metric) for those in measured]) for limit in sweep.limits]
    return Curve.model_validate(
        {
            "of": of.name,
            "kind": of.kind,
            "group": of.group,
            "points": [point.model_copy(update={"on_front": on}) for point, on in zip(points, best, strict=True)],
            "knee": knee(loads, rates, sweep.least_growth) if sweep.concurrency else None,
            "most_tokens_per_s_per_gpu": max((rate for rate in rates if rate is not None), default=None),
            "enough": enough(loads, rates, sweep.least_growth),
            "crossings": crossings,
            "ended": "\n".join(sorted(ended))[:4000] if of.kind == "node" else "",
        }
    )


def point_of(load: float, measured: Sequence[Measurement]) -> CurvePoint:
    """Return the point of one step, for one node or several together."""
    gpus = sum(one.result.engine.replicas for one in measured if one.result.engine)
    tokens_per_s = _rate(measured, "tokens_per_s")
    latency, ttft, tpot = (_pooled(measured, name) for name in _POOLED)
    energies = [
        (one.result.telemetry.energy.joules, one.metrics)
        for one in measured
        if one.metrics and one.result.telemetry and one.result.telemetry.energy
    ]
    joules = math.fsum(used for used, _ in energies) if len(energies) == len(measured) else 0.0
    return CurvePoint(
        step=load,
        nodes=len(measured),
        queries=sum(one.metrics.queries.completed for one in measured if one.metrics),
        failed=sum(one.metrics.queries.failed for one in measured if one.metrics),
        qps=_rate(measured, "qps"),
        tokens_per_s=tokens_per_s,
        tokens_per_s_per_gpu=tokens_per_s / gpus if tokens_per_s is not None and gpus else None,
        tokens_per_s_per_user=1000 / tpot.p50 if tpot and tpot.p50 > 0 else None,
        latency_p50_ms=latency.p50 if latency else None,
        latency_p99_ms=latency.p99 if latency else None,
        ttft_p50_ms=ttft.p50 if ttft else None,
        ttft_p99_ms=ttft.p99 if ttft else None,
        tpot_p50_ms=tpot.p50 if tpot else None,
        tpot_p99_ms=tpot.p99 if tpot else None,
        tokens_per_joule=per_joule(joules, [metrics for _, metrics in energies])["tokens_per_joule"],
        cost=_cost(measured),
        goodput=together([one.goodput for one in measured]),
        confident=latency is not None and "p99" not in latency.insufficient,
        valid=all(map(_holds, measured)),
    )


def _holds(one: Measurement) -> bool:
    """Return whether all checks of a step hold; an interruption in a later step does not matter."""
    verdict = one.result.verdict
    return verdict is not None and all(check.passed for check in verdict.checks)


def _rate(measured: Sequence[Measurement], name: str) -> float | None:
    """Return the sum of a rate; None if it is undefined for one node, which would be left out."""
    steps = [step for one in measured if (step := step_of(one))]
    rates = [rate for step in steps if (rate := getattr(step, name)) is not None]
    return math.fsum(rates) if rates and len(rates) == len(measured) else None


def _cost(measured: Sequence[Measurement]) -> Cost | None:
    """Return the cost of tokens under the load; None if a node has no price or rate, or currencies differ."""
    per_hour, output, prompt, currencies = [], [], [], set()
    for one in measured:
        settings, step = one.result.resolved.settings, step_of(one)
        price, rate = settings.benchmark_cost_per_gpu_hour * gpus_of(one), step.tokens_per_s if step else None
        if price <= 0 or rate is None or one.metrics is None or not one.metrics.output_tokens:
            return None
        per_hour.append(price)
        output.append(rate)
        prompt.append(rate * one.metrics.input_tokens / one.metrics.output_tokens)
        currencies.add(settings.benchmark_currency)
    if len(currencies) != 1:
        return None
    return cost_at(math.fsum(per_hour), currencies.pop(), math.fsum(output), math.fsum(prompt))


def _pooled(measured: Sequence[Measurement], name: str) -> Distribution | None:
    each = [getattr(one.metrics, name) if one.metrics else None for one in measured]
    if len(each) == 1 or None in each:  # one node's may be LoadGen's own
        return each[0] if len(each) == 1 else None
    return pooled_distribution([one.times.ascending[name] for one in measured])


def _value(measured: Sequence[Measurement], metric: str) -> float | None:
    """Return the figure that a limit names: one node's own, or that of several nodes' pooled samples."""
    if len(measured) == 1:
        return value_of(measured[0].metrics, metric) if measured[0].metrics else None
    name, _, part = metric.partition(".")
    pooled = _pooled(measured, name) if name in _POOLED else None
    return getattr(pooled, part, None)
