"""The result of a system: its figures are of one schedule over all nodes; none is a sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmark.cluster.arithmetic import gpus_of, group_nodes
from benchmark.cluster.cost import cost_of
from benchmark.cluster.drift import drift_reason
from benchmark.cluster.names import some
from benchmark.cluster.one_system import where
from benchmark.cluster.repeats import node_spread
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.results.system import LoadedSystem
from benchmark.metrics import per_joule
from benchmark.records import Check, Drift, Group, NodeRow, ServedShare, System, SystemResult, Verdict
from benchmark.records.system import ASKS_FOR_KEY
from benchmark.settings.nodes import needed_nodes
from benchmark.text.descriptions import describe_audit, describe_prefix_cache, describe_rouge
from benchmark.words import of_them, percent, plural

# The system's name in the place of a node's.
CLUSTER = "cluster"
# Share of the driver's CPU time: above it, the driver may be the bottleneck.
MOST_WAITED = 0.1
# How a reason begins that is about the whole system, not the driver.
_OF_ALL = "Nothing was measured"
# Parts of a comparison key that a node knows about itself.
_OWN = ("hardware", "dtype", "model", "revision", "engine")


def system_node(loaded: LoadedSystem) -> LoadedNode:
    """Return the system as if it were one node: measured by the driver, with the hardware of the nodes that served."""
    driver, served = loaded.driver, next((node for node in loaded.nodes if node.counted), None)
    if driver.result is None or served is None or served.result is None:
        return replace(driver, node=CLUSTER)
    asked, engine = served.result.resolved, driver.result.engine
    settings = driver.result.resolved.settings.model_copy(update={"benchmark_device": asked.settings.benchmark_device})
    # The engine and its options: the driver sees only servers.
    if engine is not None and served.result.engine is not None:
        own = served.result.engine
        engine = engine.model_copy(update={"name": own.name, "simulated": own.simulated})
    result = driver.result.model_copy(
        update={
            "environment": served.result.environment,
            "resolved": asked.model_copy(update={"settings": settings}),
            "engine": engine,
            "telemetry": None,
        }
    )
    return replace(driver, node=CLUSTER, result=result)


def system_group(loaded: LoadedSystem) -> tuple[Group, ...]:
    """Return the system's figures as a group of its nodes; empty if it has none."""
    served = [node for node in loaded.nodes if node.counted]
    if not served or loaded.driver.metrics is None:
        return ()
    (group,) = group_nodes([system_node(loaded)])
    # Only the nodes know what they are: the driver sees only servers.
    like = group_nodes(served)
    own = {name: " and ".join(dict.fromkeys(one.key[name] for one in like)) for name in _OWN}
    whole = loaded.driver.metrics
    p99s = [(node.metrics.latency_ms.p99, node.node) for node in served if node.metrics and node.metrics.latency_ms]
    worst_ms, worst = max(p99s, key=lambda pair: pair[0], default=(None, None))
    used = [
        node.result.telemetry.energy.joules
        for node in served
        if node.result and node.result.telemetry and node.result.telemetry.energy
    ]
    energy = {}
    # The energy and cost of a node that died are unknown, but its answers are among the others.
    if _all_lasted(loaded) and len(used) == len(served):
        joules = math.fsum(used)
        energy = {"energy_nodes": len(used), "energy_joules": joules, **per_joule(joules, [whole])}
    hourly = [
        node.result.resolved.settings.benchmark_cost_per_gpu_hour * gpus_of(node) for node in served if node.result
    ]
    currency = loaded.driver.result.resolved.settings.benchmark_currency if loaded.driver.result else ""
    return (
        group.model_copy(
            update={
                "label": f"{' and '.join(dict.fromkeys(one.label for one in like))}, one system"[:4000],
                "key": {**group.key, **own},
                "nodes": tuple(node.node for node in served),
                "worst_p99_latency_ms": worst_ms,
                "worst_p99_node": worst,
                "cost": cost_of(math.fsum(hourly), currency, whole) if _all_lasted(loaded) and all(hourly) else None,
                "spread": node_spread(loaded.whole),
                **energy,
            }
        ),
    )


def served_verdict(node: LoadedNode, share: ServedShare) -> Verdict:
    """Return whether a node answered its queries: the driver's limit on failed queries, applied to its share."""
    profile = node.result.resolved.profile if node.result else None
    limits = [limit for limit in profile.limits if limit.metric == "queries.failed"] if profile else []
    most = next((limit.at_most for limit in limits if limit.at_most is not None), None)
    failed = node.metrics.queries.failed if node.metrics else 0
    if most is None:
        return Verdict(valid=True, checks=(), reasons=())
    check = Check(metric="queries.failed", value=failed, comparison="at_most", limit=most, passed=failed <= most)
    error, times = next(iter(share.errors.items()), ("", 0))
    of_several = f", {of_them(times, failed)}" if failed > 1 else ""
    said = f"{plural(failed, 'query', 'queries')} failed here{of_several}: {error}"
    reasons = () if check.passed else (said,)
    return Verdict(valid=check.passed, checks=(check,), reasons=tuple(reason[:4000] for reason in reasons))


def system_result(system: System, loaded: LoadedSystem, going_on: bool = False) -> SystemResult:
    """Return the result of the system as a whole; `going_on`: its run is in progress."""
    driver = loaded.driver
    result, failure = driver.result, driver.failure
    reasons = [failure.reason] if failure else []
    if failure and not failure.reason.startswith(_OF_ALL):
        reasons = [f"The driver ({where(system)}): {failure.reason}"]
    if driver.refused:
        reasons.append(f"Refused: {driver.refused}")
    elif result is None and not failure and not going_on:
        reasons.append("The driver returned no result.")
    elif result is not None and result.status != "complete" and not failure:
        reasons.append(result.error or f"The driver's run is {result.status}.")
    elif result is not None and result.verdict is not None:
        reasons += result.verdict.reasons
    return SystemResult(
        driver=where(system),
        status=result.status if result else None,
        servers=len(loaded.shares),
        metrics=driver.metrics,
        reasons=tuple(reason[:4000] for reason in reasons),
        notes=tuple(note[:4000] for note in (*_limits(driver), *_failed(loaded), *_found(loaded), *_open(loaded))),
    )


def _failed(loaded: LoadedSystem) -> Iterator[str]:
    """Yield why queries failed on a node, unless that is a reason of the node's own."""
    for node in loaded.nodes:
        share = loaded.shares.get(node.node)
        if share is not None and share.errors and (not node.counted or served_verdict(node, share).valid):
            error, times = next(iter(share.errors.items()))
            more = f", and {sum(share.errors.values()) - times} for other reasons" if len(share.errors) > 1 else ""
            yield f"{plural(times, 'query', 'queries')} failed on {node.node}{more}: {error}"


def _open(loaded: LoadedSystem) -> Iterator[str]:
    """Yield which servers answered without the API key."""
    names = [
        node.node
        for node in loaded.nodes
        if node.result and node.result.engine and node.result.engine.details.get(ASKS_FOR_KEY) is False
    ]
    if names:
        yield (
            f"{some(names)} answered without the key, so anyone who could reach their ports could use them: make the "
            "server require $BENCHMARK_SERVE_API_KEY."
        )


def _all_lasted(loaded: LoadedSystem) -> bool:
    """Return whether all servers of the run served to the end."""
    return all(node.counted for node in loaded.nodes if node.node in loaded.shares)


def _found(loaded: LoadedSystem) -> Iterator[str]:
    """Yield what else the driver found about all servers together."""
    driver, result = loaded.driver, loaded.driver.result
    if result is None or not driver.counted:
        return
    # Per GPU of all nodes of the run: if a node died, the target may have been found with fewer.
    if result.peak and result.peak.host_vars and _all_lasted(loaded):
        yield f"target found; to measure at it again: {result.peak.host_vars}"
    if result.accuracy and result.accuracy.rouge:
        yield describe_rouge(result.accuracy.rouge)
    if result.audit:
        yield describe_audit(result.audit)
    if words := describe_prefix_cache(result.serving.prefix_cache if result.serving else None):
        yield words


def _limits(driver: LoadedNode) -> Iterator[str]:
    """Yield signs that the servers waited for the driver."""
    result, seen = driver.result, driver.metrics
    if result is None or not driver.counted:
        return
    if result.serving and result.serving.waited:
        yield (
            f"{plural(result.serving.waited, 'query', 'queries')} waited in the driver for one of its "
            f"{result.serving.max_connections} connections: raise its limit of open files (ulimit -n)."
        )
    if result.cpu and result.cpu.waited_s and result.cpu.waited_s > MOST_WAITED * result.cpu.wall_s:
        yield (
            f"The driver's threads waited {result.cpu.waited_s:.1f} s in {result.cpu.wall_s:.1f} s for a core: set "
            "benchmark_driver to a machine with more idle cores."
        )
    limit = next((one.at_most for one in result.resolved.profile.limits if one.metric == "issue_delay_ms.p99"), None)
    if seen and seen.issue_delay_ms and limit is not None and seen.issue_delay_ms.p99 > limit:
        yield (
            f"The driver issued queries up to {seen.issue_delay_ms.p99:.0f} ms (P99) after they were due: the driver "
            "was measured, not the servers."
        )


def system_verdict(
    rows: Sequence[NodeRow],
    found: SystemResult,
    loaded: LoadedSystem,
    min_nodes: int | str,
    drift: Sequence[Drift] | None,
    partial: str,
) -> Verdict:
    """Return the verdict: the driver's own, and whether enough nodes served to the end."""
    counted = [row for row in rows if row.counted]
    missing = [row.node for row in rows if not (row.counted or row.in_progress)]
    needed = needed_nodes(min_nodes, len(rows))
    result = loaded.driver.result
    enough = len(counted) >= needed
    checks = [
        Check(metric="nodes counted", value=len(counted), comparison="at_least", limit=needed, passed=enough),
        *(result.verdict.checks if result and result.verdict and loaded.driver.counted else ()),
    ]
    reasons = [partial] if partial else []
    reasons += found.reasons
    if not enough and missing and loaded.driver.counted:
        share = f"{len(missing)} of {plural(len(rows), 'node')} {'is' if len(missing) == 1 else 'are'}"
        reasons.append(f"{share} not counted: {some(missing)}.")
    if drift:
        reasons.append(f"Drift: {drift_reason(drift)}")
    if not reasons and not (result and result.verdict and result.verdict.valid):
        reasons.append("The driver gave no verdict.")
    return Verdict(valid=not reasons, checks=tuple(checks), reasons=tuple(reasons))


def nothing_measured(found: SystemResult) -> bool:
    """Return whether it is known why the driver measured nothing: it is then ended for that reason too."""
    return any(reason.startswith(_OF_ALL) for reason in found.reasons)


def system_words(group: Group, found: SystemResult) -> str:
    """Return how many nodes a system's figures are of: all of the run, even if one did not last."""
    lasted = "" if len(group.nodes) == found.servers else f", of which {len(group.nodes)} served to the end"
    return f"{plural(found.servers, 'node')} as one system{lasted}"


def share_words(row: NodeRow) -> str:
    """Return a node's share of the completed queries; empty if unknown."""
    return "-" if row.served is None or row.served.share is None else percent(row.served.share, 0).lstrip("+")
