"""Compute the cluster's result from a run's files. Read-only: no file of a node is ever changed or removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cluster.agreement import agreements
from benchmark.cluster.arithmetic import (
    cluster_verdict,
    comparison_key,
    gpus_of,
    group_nodes,
    least_together,
    measured_attempts,
    node_cost,
)
from benchmark.cluster.diagnosis import diagnose
from benchmark.cluster.diagnosis.aspects import rate_of
from benchmark.cluster.drift import NodeFacts, find_drift
from benchmark.cluster.groups import as_rows, groups_of
from benchmark.cluster.history.earlier import earlier_runs
from benchmark.cluster.interruption import why_partial
from benchmark.cluster.leader import at_work
from benchmark.cluster.one_system import CLUSTER
from benchmark.cluster.repeats import at_repeat, median_of, node_spread, with_spread
from benchmark.cluster.results.groups import load_rows
from benchmark.cluster.results.load import MAX_REASON, LoadedNode, one_line, unknown_dirs
from benchmark.cluster.results.system import LoadedSystem, load_system
from benchmark.cluster.roofline import roofline
from benchmark.cluster.solo import solo_changes
from benchmark.cluster.stored.read import history_key
from benchmark.cluster.sweep import curves_of, steps_of
from benchmark.cluster.system_result import served_verdict, system_group, system_node, system_result, system_verdict
from benchmark.records import ClusterResult, Drift, Group, NodeResult, NodeRow, Repeats, RunRecord, Slo, System
from benchmark.rundir import STOPPED, read_run
from benchmark.served import describe_model, server_version
from benchmark.settings import ResolvedSettings, Settings
from benchmark.text.descriptions import describe_audit, describe_fallback, model_of
from benchmark.words import during, plural

GOES_ON = "The run is still going: this shows the nodes that have ended so far, and is rewritten when the run ends."


@dataclass(frozen=True)
class Gathered:
    """A run as its files describe it: what was asked, what is known of each node, and the result."""

    run: RunRecord
    nodes: tuple[LoadedNode, ...]
    result: ClusterResult
    originals: tuple[LoadedNode, ...] = ()
    """The nodes with all their repeats, in the same order; in `nodes`, one repeat stands for each."""
    system: LoadedSystem | None = None
    """Where all nodes are one system: its driver, whose samples are shared among the nodes."""

    @property
    def compared(self) -> tuple[LoadedNode, ...]:
        """What another run is compared with: the nodes, or the system that they form."""
        return (system_node(self.system),) if self.system else self.nodes


def aggregate(run_dir: Path) -> ClusterResult:
    """Return the cluster's result of the run in `run_dir` (see `gather`)."""
    return gather(run_dir).result


def gather(run_dir: Path, slo: Slo | None = None) -> Gathered:
    """Return the run in `run_dir`, its nodes and the cluster's result, from its files alone.

    A file that is corrupt, oversized, a link, from another run or node, or that contradicts its samples, is named in
    `problems`, and its node is not counted; the others are. Goodput is computed for the limits `slo`; None: the
    profile's own. Raises InputError if `run_dir` holds no run.
    """
    run_dir = run_dir.resolve()
    run = read_run(run_dir)
    if run.system is not None:
        system = load_system(run_dir, run, run.system, slo)
        return Gathered(run, system.nodes, _result_of_system(run_dir, run, run.system, system), system.nodes, system)
    loaded = load_rows(run_dir, run, slo)
    nodes, _ = median_of(loaded)
    return Gathered(as_rows(run), nodes, _result(run_dir, run, loaded), loaded)


def _result(run_dir: Path, asked: RunRecord, loaded: Sequence[LoadedNode]) -> ClusterResult:
    run, members = as_rows(asked), groups_of(asked.nodes)
    nodes, repeats = median_of(loaded)
    counted = [node for node in nodes if node.counted]
    groups = with_spread(group_nodes(counted), loaded)
    group_of = {name: number for number, group in enumerate(groups) for name in group.nodes}
    going_on = at_work(run.attempts[-1].controller if run.attempts else None)
    rows = tuple(
        _row(node, whole, run.nodes[node.node], group_of, going_on).model_copy(
            update={"members": members.get(node.node, ())}
        )
        for node, whole in zip(nodes, loaded, strict=True)
    )
    compared = agreements(counted)
    wide = _run_wide(run)
    drift = _drift(run, nodes) if wide.benchmark_drift != "ignore" else ()
    partial = GOES_ON if going_on else why_partial(run_dir, any(map(_has_measured, loaded)))
    attempts = measured_attempts(run, counted)
    return ClusterResult(
        run_id=run.run_id,
        profile=", ".join(sorted({resolved.profile.name for resolved in run.nodes.values()}))[:200],
        asked=len(rows),
        counted=len(counted),
        nodes=rows,
        groups=groups,
        overlap=attempts[0].overlap if len(attempts) == 1 else None,
        attempts=attempts if len(attempts) > 1 else (),
        repeats=_with_overlap(repeats, run, loaded) if repeats else None,
        sweep=curves_of(loaded, groups),
        agreements=compared,
        partial=partial,
        in_progress=going_on,
        findings=diagnose(counted, groups, drift, earlier_runs(run_dir, _comparison_keys(groups, rows))),
        drift=drift,
        problems=tuple(
            problem[:MAX_REASON] for problem in (*(p for n in nodes for p in n.problems), *unknown_dirs(run_dir, asked))
        ),
        verdict=cluster_verdict(
            rows,
            least_together(attempts),
            compared,
            min_nodes=wide.benchmark_min_nodes,
            drift=drift if wide.benchmark_drift == "fail" else None,
            partial=partial,
        ),
    )


def _result_of_system(run_dir: Path, run: RunRecord, system: System, loaded: LoadedSystem) -> ClusterResult:
    counted = [node for node in loaded.nodes if node.counted]
    groups = system_group(loaded)
    group_of = dict.fromkeys(groups[0].nodes, 0) if groups else {}
    going_on = at_work(run.attempts[-1].controller if run.attempts else None)
    rows = []
    for node in loaded.nodes:
        row = _row(node, node, run.nodes[node.node], group_of, going_on)
        if share := loaded.shares.get(node.node):
            verdict = served_verdict(node, share) if node.counted else None
            reason = {"reason": "\n".join(verdict.reasons)} if verdict else {}
            row = row.model_copy(update={"served": share, "verdict": verdict, "audit": "", **reason})
        rows.append(row)
    wide = _run_wide(run)
    drift = _drift(run, loaded.nodes) if wide.benchmark_drift != "ignore" else ()
    partial = GOES_ON if going_on else why_partial(run_dir, any(map(_has_measured, (loaded.driver, *loaded.nodes))))
    found = system_result(system, loaded, going_on)
    fails = drift if wide.benchmark_drift == "fail" else None
    problems = (*loaded.driver.problems, *(p for n in loaded.nodes for p in n.problems), *unknown_dirs(run_dir, run))
    return ClusterResult(
        run_id=run.run_id,
        profile=system.resolved.profile.name,
        asked=len(rows),
        counted=len(counted),
        nodes=tuple(rows),
        groups=groups,
        overlap=None,
        repeats=loaded.repeats,
        partial=partial,
        in_progress=going_on,
        findings=diagnose(counted, groups, drift, earlier_runs(run_dir, _comparison_keys(groups, rows))),
        drift=drift,
        problems=tuple(problem[:MAX_REASON] for problem in problems),
        system=found,
        verdict=system_verdict(rows, found, loaded, wide.benchmark_min_nodes, fails, partial),
    )


def _with_overlap(repeats: Repeats, run: RunRecord, loaded: Sequence[LoadedNode]) -> Repeats:
    """Return the repeats, each with the overlap of all nodes if they measured in one attempt."""
    rows = []
    for row in repeats.rows:
        attempts = measured_attempts(run, [at_repeat(node, row.number) for node in loaded if node.counted])
        overlap = attempts[0].overlap if len(attempts) == 1 else None
        rows.append(row.model_copy(update={"overlap": overlap}))
    return repeats.model_copy(update={"rows": tuple(rows)})


def _run_wide(run: RunRecord) -> Settings:
    """Return any node's order: settings of the whole run are equal in all of them."""
    return next((asked.settings for asked in run.nodes.values()), Settings())


def _drift(run: RunRecord, nodes: Sequence[LoadedNode]) -> tuple[Drift, ...]:
    """Return what the nodes differ in, counted or not: a difference may be why one failed."""
    return find_drift(
        {
            node.node: NodeFacts(
                node.result.environment, run.nodes[node.node].settings, node.clock, server_version(node.result.engine)
            )
            for node in nodes
            if node.result and node.result.environment
        }
    )


def _comparison_keys(groups: Sequence[Group], rows: Sequence[NodeRow]) -> dict[str, str]:
    """Return what a counted node's earlier runs must have in common with this one to be its history."""
    return {row.node: history_key(groups[row.group], row) for row in rows if row.group is not None}


def _has_measured(node: LoadedNode) -> bool:
    """Return whether anything of the node was measured, also in an earlier attempt."""
    done = node.metrics is not None and node.metrics.queries.completed > 0
    return done or bool(node.earlier) or (node.result is not None and node.result.probes is not None)


def _row(
    node: LoadedNode, whole: LoadedNode, asked: ResolvedSettings, group_of: Mapping[str, int], going_on: bool
) -> NodeRow:
    """Return a node's row from the measurement that stands for it; `whole`: the node with all its measurements."""
    result = node.result
    failed = "failed" if node.failure is not None else "in progress" if going_on else "missing"
    status = "refused" if node.refused else result.status if result else failed
    return NodeRow.model_validate(
        {
            "node": node.node,
            "status": status,
            "counted": node.counted,
            "attempt": result.attempt if result else None,
            "reason": _reason(whole, going_on)[:MAX_REASON],
            "stage": _stage(node),
            "group": group_of.get(node.node),
            "model": _model(node, asked)[:MAX_REASON],
            "gpu": comparison_key(node)["hardware"][:MAX_REASON] if node.counted else None,
            "gpus": gpus_of(node),
            "simulated": result is not None and result.engine is not None and result.engine.simulated,
            "fallback": describe_fallback(result.engine)[:MAX_REASON] if result and result.engine else "",
            "metrics": node.metrics,
            "probes": result.probes if result and node.counted else None,
            "roofline": roofline(node) if node.counted else None,
            "energy": result.telemetry.energy if result and result.telemetry and node.counted else None,
            "prefix_cache": result.serving.prefix_cache if result and result.serving and node.counted else None,
            "cost": node_cost(node) if node.counted else None,
            "goodput": node.goodput if node.counted else None,
            "rate": rate_of(result) if result and node.counted else "",
            "load": result.load if result and node.counted else None,
            "rouge": result.accuracy.rouge if result and result.accuracy else None,
            "audit": describe_audit(result.audit)[:MAX_REASON] if result and result.audit else "",
            "host_vars": result.peak.host_vars if result and result.peak else "",
            "verdict": result.verdict if result and node.counted else None,
            "solo": solo_changes(result) if result and node.counted else (),
            "spread": node_spread(whole),
        }
    )


def _model(node: LoadedNode, asked: ResolvedSettings) -> str:
    return model_of(node.result) if node.result else describe_model(asked.settings, asked.profile.engine)


def _stage(node: LoadedNode) -> str:
    """Return the stage at which a node failed: from its own result, else from what the controller knows."""
    if node.counted:
        return ""
    if node.result is not None:
        return node.result.stage
    return node.failure.stage if node.failure else ""


def _reason(node: LoadedNode, going_on: bool) -> str:
    """Return why the node is invalid or not counted, one sentence per line; empty for a valid node."""
    result = node.result
    failure = [one_line(node.failure)] if node.failure else []
    if node.refused:
        return "\n".join([f"Refused: {node.refused}", *failure])
    if result is None:
        return "\n".join(failure) or ("In progress: no result yet." if going_on else "No result came back.")
    if result.status == "complete":
        return "\n".join(result.verdict.reasons) if result.verdict else ""
    own = result.error or ""
    # The signal that ended it only repeats that the controller stopped it; the controller's reason says why.
    repeated = any(own in reason for reason in failure) or (bool(failure) and own.startswith(STOPPED))
    error = [own] if own and not repeated else []
    if not result.resolved.profile.loads_model:
        return "\n".join([f"{result.status.capitalize()} {during(result.stage)}.", *error, *failure])
    reported = f"{result.status} {during(result.stage)}"
    if result.resolved.settings.benchmark_system != CLUSTER:  # else the driver's result has what its servers answered
        reported += f", after {_how_far(node, result)}"
    return "\n".join([f"{reported[0].upper()}{reported[1:]}.", *error, *failure])


def _how_far(node: LoadedNode, result: NodeResult) -> str:
    """Return how much a node had measured when it ended: steps of a sweep, else queries."""
    profile, measurements = result.resolved.profile, result.resolved.measurements
    queries = node.metrics.queries if node.metrics else None
    planned = profile.samples or (queries.planned if queries else 0)
    done = queries.completed if queries else 0
    if profile.sweep and (whole := len(steps_of(node))):
        return f"{whole} of {plural(measurements, 'step')}"
    several = f" of the first {'step' if profile.sweep else 'repeat'}" if measurements > 1 else ""
    return f"{_count(done, planned)}{several}"


def _count(done: int, planned: int) -> str:
    """Return how many queries were completed, and of how many where that is known."""
    return f"{done} of {plural(planned, 'query', 'queries')}" if planned else plural(done, "query", "queries")
