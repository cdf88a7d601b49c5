"""The cluster's arithmetic: like nodes are summed, unlike nodes are grouped apart, percentiles are of pooled samples.

Nothing here depends on the order of the nodes: sums are exact (`math.fsum`), and ties go to the first name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.canonical import canonical_sha256
from benchmark.cluster.cost import cost_of, cost_together
from benchmark.cluster.drift import drift_reason, hardware
from benchmark.cluster.goodput_sum import together
from benchmark.cluster.names import natural, some
from benchmark.cluster.results.load import LoadedNode, Measurement
from benchmark.metrics import NS_PER_MS, NS_PER_S, per_joule, pooled_distribution
from benchmark.records import (
    Agreement,
    Check,
    Cost,
    Disagreement,
    Distribution,
    Drift,
    Group,
    MeasuredAttempt,
    NodeResult,
    NodeRow,
    Overlap,
    QueryCounts,
    ReadyNode,
    RunRecord,
    Verdict,
    Window,
)
from benchmark.served import NOT_REPORTED, in_label, model_facts
from benchmark.settings.nodes import needed_nodes
from benchmark.words import plural

# Nodes whose windows overlap by less did not measure together; clocks are not known more precisely.
MIN_OVERLAP_S = 0.001
# A node that began this much after the agreed time is named.
LATE_MS = 100.0
# Hex digits of a hash or commit that are shown.
SHORT = 12
_ALWAYS = ("hardware", "dtype")


def comparison_key(node: LoadedNode) -> dict[str, str]:
    """Return what must be equal in two counted nodes for them to be summed."""
    result = node.result
    if result is None or result.environment is None:
        raise ValueError(f"{node.node} is not counted")
    settings, profile, seen = result.resolved.settings, result.resolved.profile, result.environment
    if not profile.loads_model:
        device, named = settings.benchmark_device, f"{profile.name} v{profile.version}"
        return {"hardware": hardware(settings, seen), "device": device, "profile": named}
    if result.engine is None or result.dataset is None:
        raise ValueError(f"{node.node} is not counted")
    facts = model_facts(settings, result.engine.name, result.engine.details)
    return {
        "hardware": hardware(settings, seen),
        "dtype": facts.dtype,
        "device": settings.benchmark_device,
        "model": facts.name,
        "revision": facts.revision,
        "profile": f"{profile.name} v{profile.version}",
        "profile_sha256": canonical_sha256(profile.model_dump(mode="json"))[:SHORT],
        "engine": result.engine.name + (" (simulated)" if result.engine.simulated else ""),
        # Two servers may use one name for different models, such as a quantized one.
        "served": facts.served,
        "dataset": f"{result.dataset.name} {result.dataset.sha256[:SHORT]}",
        # Nodes that got queries at other times had other queues.
        **({"arrivals": result.arrivals_sha256[:SHORT]} if result.arrivals_sha256 else {}),
        **_reuse(result),
        # A node's share of a system's queries depends on the others.
        **({"system": "cluster"} if settings.benchmark_system == "cluster" else {}),
    }


def _reuse(result: NodeResult) -> dict[str, str]:
    """Return whether prompts were reused, where they may be: such answers cost less and must not mix with others.

    A server may have its prefix cache on. Unless the profile permits that, a run with reused prompts is invalid.
    """
    if not result.resolved.profile.prefix_caching:
        return {}
    cache = result.serving.prefix_cache if result.serving else None
    if result.serving is None or (cache is not None and cache.cached_tokens == 0):
        return {"prefix_cache": "nothing reused"}
    reported = cache is not None and cache.cached_tokens is not None
    return {"prefix_cache": "prompts reused" if reported else f"reuse of prompts {NOT_REPORTED}"}


def gpus_of(node: LoadedNode | Measurement) -> int:
    """Return how many GPUs answered; 0 on the CPU."""
    result = node.result
    on_gpu = result is not None and result.resolved.settings.benchmark_device == "cuda"
    if result and not result.resolved.profile.loads_model:
        return len(result.probes.gpus) if result.probes else 0
    return result.engine.replicas if on_gpu and result and result.engine and not result.engine.simulated else 0


def node_cost(node: LoadedNode) -> Cost | None:
    """Return the cost of a counted node's tokens; None without a price, or if no GPU answered."""
    if node.result is None or node.metrics is None:
        return None
    settings = node.result.resolved.settings
    return cost_of(settings.benchmark_cost_per_gpu_hour * gpus_of(node), settings.benchmark_currency, node.metrics)


def group_nodes(counted: Iterable[LoadedNode]) -> tuple[Group, ...]:
    """Return the sums over like nodes, ordered by what they have in common."""
    members: dict[tuple[tuple[str, str], ...], list[LoadedNode]] = {}
    for node in sorted(counted, key=lambda node: natural(node.node)):
        members.setdefault(tuple(comparison_key(node).items()), []).append(node)
    keys = sorted(members)
    # A run without queries has a shorter key.
    facts = [dict(key) for key in keys]
    differing = {name for one in facts for name in one | facts[0] if one.get(name) != facts[0].get(name)}
    return tuple(_group(dict(key), members[key], differing) for key in keys)


def _group(key: dict[str, str], nodes: Sequence[LoadedNode], differing: set[str]) -> Group:
    each = [node.metrics for node in nodes if node.metrics is not None]
    gpus = sum(gpus_of(node) for node in nodes)
    qps = _sum(metrics.qps for metrics in each)
    tokens_per_s = _sum(metrics.tokens_per_s for metrics in each)
    queries = [metrics.queries for metrics in each]
    p99s = [(node.metrics.latency_ms.p99, node.node) for node in nodes if node.metrics and node.metrics.latency_ms]
    worst_ms, worst = max(p99s, key=lambda pair: pair[0], default=(None, None))
    return Group(
        label=", ".join(in_label(name, key[name]) for name in key if key[name] and name in {*_ALWAYS, *differing})[
            :4000
        ],
        key=key,
        nodes=tuple(node.node for node in nodes),
        gpus=gpus,
        qps=qps,
        tokens_per_s=tokens_per_s,
        qps_per_gpu=qps / gpus if qps is not None and gpus else None,
        tokens_per_s_per_gpu=tokens_per_s / gpus if tokens_per_s is not None and gpus else None,
        queries=QueryCounts(
            planned=sum(q.planned for q in queries),
            completed=sum(q.completed for q in queries),
            failed=sum(q.failed for q in queries),
            unfinished=sum(q.unfinished for q in queries),
        ),
        latency_ms=_pooled(nodes, "latency_ms"),
        ttft_ms=_pooled(nodes, "ttft_ms"),
        tpot_ms=_pooled(nodes, "tpot_ms"),
        worst_p99_latency_ms=worst_ms,
        worst_p99_node=worst,
        **_energy(nodes),
        cost=cost_together([(node_cost(node), node.metrics) for node in nodes]),
        goodput=together([node.goodput for node in nodes]),
    )


def _pooled(nodes: Sequence[LoadedNode], name: str) -> Distribution | None:
    """Return the distribution over all nodes' samples; None if it is undefined for one, which would be left out."""
    if any(node.metrics and node.metrics.output_tokens and not getattr(node.metrics, name) for node in nodes):
        return None
    if len(nodes) == 1:  # LoadGen's own figures, where it drove the run
        return getattr(nodes[0].metrics, name, None)
    return pooled_distribution([node.times.ascending[name] for node in nodes])


def _energy(nodes: Sequence[LoadedNode]) -> dict[str, Any]:
    """Return the joules of the nodes that report them, and these nodes' tokens and queries per joule."""
    reported = [
        (node.result.telemetry.energy.joules, node.metrics)
        for node in nodes
        if node.metrics and node.result and node.result.telemetry and node.result.telemetry.energy
    ]
    if not reported:
        return {}
    joules = math.fsum(used for used, _ in reported)
    ratios = per_joule(joules, (metrics for _, metrics in reported))
    return {"energy_nodes": len(reported), "energy_joules": joules, **ratios}


def _sum(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) if defined else None


def overlap(windows: Mapping[str, Window], clocks: Mapping[str, ReadyNode]) -> Overlap | None:
    """Return how long all nodes' windows overlap, how long at least one is open, and the skew of their starts.

    Times are by the controller's clock if every node's offset to it was measured, else by the nodes' own clocks.
    """
    if not windows:
        return None
    measured = windows.keys() <= clocks.keys()
    offsets = {node: clocks[node].offset_ns if measured else 0 for node in windows}
    spans = sorted((w.started_unix_ns - offsets[node], w.ended_unix_ns - offsets[node]) for node, w in windows.items())
    first, last = spans[0][0], spans[-1][0]
    union, reached = 0, first
    for start, end in spans:
        union += max(0, end - max(start, reached))
        reached = max(reached, end)
    uncertainty_ms = None
    if measured and len(windows) > 1:
        # The skew is between two nodes: it is off by the uncertainties of two at most.
        uncertainty_ms = sum(sorted(clocks[node].uncertainty_ns for node in windows)[-2:]) / NS_PER_MS
    return Overlap(
        together_s=max(0, min(end for _, end in spans) - last) / NS_PER_S,
        any_s=union / NS_PER_S,
        skew_ms=(last - first) / NS_PER_MS,
        uncertainty_ms=uncertainty_ms,
        late_ms={
            node: windows[node].late_ms
            for node in sorted(windows, key=natural)
            if (windows[node].late_ms or 0) >= LATE_MS
        },
    )


def measured_attempts(run: RunRecord, counted: Sequence[LoadedNode]) -> tuple[MeasuredAttempt, ...]:
    """Return the attempts that measured the counted nodes, each with the overlap of its own nodes."""
    members: dict[int, list[LoadedNode]] = {}
    for node in sorted(counted, key=lambda node: natural(node.node)):
        if node.result is not None:
            members.setdefault(node.result.attempt, []).append(node)
    return tuple(
        MeasuredAttempt(
            number=number,
            at=run.attempts[number - 1].at if run.attempts else run.created_at,
            nodes=tuple(node.node for node in nodes),
            overlap=overlap(
                {node.node: node.result.window for node in nodes if node.result and node.result.window},
                {node.node: node.clock for node in nodes if node.clock},
            ),
        )
        for number, nodes in sorted(members.items())
    )


def least_together(attempts: Sequence[MeasuredAttempt]) -> Overlap | None:
    """Return the overlap that decides the verdict: the shortest of the attempts that measured several nodes."""
    together = [one.overlap for one in attempts if one.overlap is not None and len(one.nodes) > 1]
    return min(together, key=lambda seen: seen.together_s, default=None)


def cluster_verdict(
    rows: Sequence[NodeRow],
    measured_together: Overlap | None,
    compared: Sequence[Agreement] = (),
    min_nodes: int | str = "100%",
    drift: Sequence[Drift] | None = None,
    partial: str = "",
) -> Verdict:
    """Return the verdict: enough nodes counted, all of them valid, all measured together, and like nodes agree.

    Enough is `min_nodes`, a number or a percentage of the run's nodes. `drift`: what nodes differ in, if they must not
    differ; None: they may. A `partial` run, which was ended early or is still going, is never valid, however many
    nodes have delivered.
    """
    counted = [row for row in rows if row.counted]
    valid = [row for row in counted if row.verdict is not None and row.verdict.valid]
    missing = [row.node for row in rows if not (row.counted or row.in_progress)]
    invalid = [row.node for row in counted if row.verdict is None or not row.verdict.valid]
    needed = needed_nodes(min_nodes, len(rows))
    checks = [
        _at_least("nodes counted", len(counted), needed),
        _at_least("nodes valid", len(valid), max(needed, len(counted))),
    ]
    reasons = [partial] if partial else []
    if len(counted) < needed and (missing or not any(row.in_progress for row in rows)):
        reported = "All nodes of the run are counted"
        if missing:
            reported = f"{_share(missing, rows)} not counted: {some(missing)}"
        least = "" if needed == len(rows) else f"; benchmark_min_nodes asks for {needed}"
        reasons.append(f"{reported}{least}.")
    if invalid:
        reasons.append(f"{_share(invalid, rows)} invalid: {some(invalid)}.")
    if len(counted) > 1 and measured_together is not None:
        checks.append(_at_least("seconds measured together", measured_together.together_s, MIN_OVERLAP_S))
        if not checks[-1].passed:
            reasons.append("The nodes did not all measure at the same time.")
    for agreement in compared:
        agree = len(agreement.nodes) - len(agreement.disagreements)
        checks.append(_at_least("like nodes with the same greedy tokens", agree, len(agreement.nodes)))
        reasons += [disagreement_words(one) for one in agreement.disagreements]
    if drift is not None:
        checks.append(_at_most("facts in which nodes with the same hardware differ", len(drift), 0))
        reasons += [f"Drift: {drift_reason(drift)}"] if drift else []
    return Verdict(valid=not reasons, checks=tuple(checks), reasons=tuple(reasons))


def disagreement_words(one: Disagreement) -> str:
    """Return which node differs from which others, and where first."""
    return (
        f"{one.node} gives other greedy tokens than {some(one.others)}: prompt {one.prompt}, from token "
        f"{one.position + 1} on."
    )


def _at_least(what: str, value: float, limit: float) -> Check:
    return Check(metric=what, value=value, comparison="at_least", limit=limit, passed=value >= limit)


def _at_most(what: str, value: float, limit: float) -> Check:
    return Check(metric=what, value=value, comparison="at_most", limit=limit, passed=value <= limit)


def _share(names: Sequence[str], rows: Sequence[NodeRow]) -> str:
    return f"{len(names)} of {plural(len(rows), 'node')} {'is' if len(names) == 1 else 'are'}"
