"""How a run ended, in short: `verdict.json`, also for a run without a summary."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmark.cluster.goodput import serves
from benchmark.cluster.outcome import Outcome
from benchmark.probed import figures, in_order
from benchmark.records import (
    AgainstBaseline,
    BaselineChange,
    ClusterResult,
    Comparison,
    FailedNode,
    Group,
    GroupFigures,
    NodeRow,
    RunVerdict,
    SlowNode,
)
from benchmark.records.run_verdict import MOST_CHARACTERS, MOST_LINES, MOST_NODES, ProbeFigure
from benchmark.words import brief

VERDICT_FILE = "verdict.json"


def run_verdict(outcome: Outcome, run_dir: Path | None, report: str) -> RunVerdict:
    """Return how a run ended; `report` is the page's name in its directory."""
    run, result = outcome.run, outcome.result
    counted = [row.node for row in result.nodes if row.counted] if result else []
    failed = [row for row in result.nodes if not (row.counted or row.in_progress)] if result else []
    path = run_dir / report if run_dir else None
    return RunVerdict.model_validate(
        {
            "outcome": outcome.word.lower(),
            "run_id": run.run_id if run else None,
            "profile": result.profile if result else None,
            "ended_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "controller": socket.gethostname(),
            "run_dir": str(run_dir) if run_dir else None,
            "report": str(path) if path and path.is_file() else None,
            "reasons": [_brief(reason) for reason in _reasons(outcome)][:MOST_LINES],
            "asked_nodes": result.asked if result else len(run.nodes) if run else 0,
            "counted_nodes": len(counted),
            "failed_nodes": len(failed),
            "counted": counted[:MOST_NODES],
            "failed": [FailedNode(node=row.node, reason=_brief(row.reason)) for row in failed[:MOST_LINES]],
            "figures": [_figures(group, result) for group in result.groups[:MOST_LINES]] if result else [],
            "against_baseline": _against(outcome.against_baseline),
            "slow": list(_slow(result))[:MOST_LINES] if result else [],
        }
    )


def _reasons(outcome: Outcome) -> Iterator[str]:
    yield from outcome.broke.splitlines()
    if outcome.result is not None:
        if outcome.result.partial:
            yield outcome.result.partial
        yield from (reason for reason in outcome.result.verdict.reasons if reason != outcome.result.partial)


def _figures(group: Group, result: ClusterResult) -> GroupFigures:
    return GroupFigures(
        label=group.label,
        nodes=len(group.nodes),
        gpus=group.gpus,
        qps=group.qps,
        qps_per_gpu=group.qps_per_gpu,
        tokens_per_s=group.tokens_per_s,
        latency_ms=group.latency_ms,
        ttft_ms=group.ttft_ms,
        tpot_ms=group.tpot_ms,
        tokens_per_joule=group.tokens_per_joule,
        cost=group.cost,
        goodput=group.goodput,
        serves=_brief(serves(group, result.nodes, result.sweep)),
        probes=tuple(_probes([row for row in result.nodes if row.node in set(group.nodes)])),
    )


def _probes(rows: Sequence[NodeRow]) -> Iterator[ProbeFigure]:
    found = {row.node: figures(row.probes) for row in rows}
    for one in in_order(found.values()):
        has = {node: each[one.name] for node, each in found.items() if one.name in each}
        figure = ProbeFigure(
            metric=one.metric, unit=one.unit, median=statistics.median(each.median for each in has.values())
        )
        if one.better is not None:
            pick = min if one.better == "higher" else max
            node = pick(has, key=lambda name: has[name].worst.value)
            worst = has[node].worst
            of_it = {"worst": worst.value, "worst_node": node, "worst_gpu": worst.gpu, "worst_peer": worst.peer}
            figure = figure.model_copy(update=of_it)
        yield figure


def _against(changed: Comparison | str) -> AgainstBaseline | None:
    if isinstance(changed, str):
        return AgainstBaseline(note=_brief(changed)) if changed else None
    changes = list(_changes(changed))[:MOST_LINES]
    return AgainstBaseline(baseline=changed.before, outcome=changed.outcome, changes=tuple(changes))


def _changes(changed: Comparison) -> Iterable[BaselineChange]:
    for group in changed.groups:
        for one in group.changes:
            yield BaselineChange(
                label=group.label,
                metric=one.metric,
                unit=one.unit,
                before=one.before,
                after=one.after,
                change=one.change,
                outcome=one.outcome,
            )
        for node in group.each:
            yield BaselineChange(
                label=group.label,
                metric=node.metric,
                unit=node.unit,
                node=node.node,
                gpu=node.gpu,
                peer=node.peer,
                before=node.before,
                after=node.after,
                change=node.change,
                outcome=node.outcome,
            )


def _slow(result: ClusterResult) -> Iterator[SlowNode]:
    for found in result.findings:
        yield SlowNode(
            node=found.node,
            place=found.place,
            metric=found.metric,
            value=found.value,
            expected=found.expected,
            change=found.change,
            cause=_brief(found.cause),
        )


def _brief(text: str) -> str:
    return brief(text, MOST_CHARACTERS)
