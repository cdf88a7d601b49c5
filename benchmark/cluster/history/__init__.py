"""Every node's trend over all stored runs with like settings: since when it is another one, and what drifted then."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmark.cluster.diagnosis.aspects import ASPECTS, Aspect, aspects_for
from benchmark.cluster.drift import NodeFacts, find_drift
from benchmark.cluster.history.changepoint import LEAST_SIDE, change_points
from benchmark.cluster.history.read import NodeRun, node_runs, run_ids
from benchmark.cluster.names import natural
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.records import DriftAt, History, HistoryPoint, NodeHistory, NodeResult, Shift
from benchmark.rundir import NODES
from benchmark.served import server_version

__all__ = ["ASPECTS", "node_history"]


def node_history(results: Path, node: str = "", until: str = "", most: int = 0) -> History:
    """Return every node's history in a results directory, or one node's. Raises InputError where there is none.

    `until`: the last run that is looked at; `most`: look at so many runs at most. Without them all are.
    """
    series: dict[tuple[str, str], list[NodeRun]] = {}
    skipped: list[str] = []
    wanted = [run_id for run_id in run_ids(results) if not until or run_id <= until]
    for run_id in wanted[-most:]:
        try:
            runs = list(node_runs(results, run_id))
        except InputError as error:
            skipped.append(str(error))
            continue
        for run in runs:
            if node in ("", run.node):
                series.setdefault((run.node, run.comparison_key), []).append(run)
    ordered = sorted(series, key=lambda key: (natural(key[0]), series[key][0].run_id))
    return History(
        nodes=tuple(_history(results, series[key]) for key in ordered),
        skipped=tuple(text[:4000] for text in skipped),
    )


def _history(results: Path, runs: Sequence[NodeRun]) -> NodeHistory:
    first = runs[0]
    shifts = [shift for aspect in aspects_for(first.rate) for shift in _shifts(runs, aspect)]
    at = {shift.run_id: shift.previous_run_id for shift in shifts}
    return NodeHistory(
        node=first.node,
        label=first.label,
        comparison_key=first.comparison_key,
        points=tuple(HistoryPoint(run_id=run.run_id, valid=run.valid, values=run.values) for run in runs),
        shifts=tuple(shifts),
        drift=tuple(
            DriftAt(run_id=run_id, facts=_drifted(results, first.node, at[run_id], run_id)) for run_id in sorted(at)
        ),
    )


def _shifts(runs: Sequence[NodeRun], aspect: Aspect) -> list[Shift]:
    known = [run for run in runs if aspect.metric in run.values]
    values = [run.values[aspect.metric] for run in known]
    cuts = change_points(values, aspect.assumed)
    edges = [0, *cuts, len(values)]
    found = []
    for number, cut in enumerate(cuts, start=1):
        before = statistics.median(values[edges[number - 1] : cut])
        after = statistics.median(values[cut : edges[number + 1]])
        count = edges[number + 1] - cut
        found.append(
            Shift(
                metric=aspect.metric,
                run_id=known[cut].run_id,
                previous_run_id=known[cut - 1].run_id,
                before=before,
                after=after,
                change=after / before - 1,
                worse=(after < before) == aspect.higher_is_better,
                runs=count,
                tentative=count < LEAST_SIDE,
            )
        )
    return found


def _drifted(results: Path, node: str, before: str, after: str) -> tuple[str, ...]:
    """Return which facts of the node differ between two runs, a sentence each."""
    facts = {}
    for when, run_id in (("before", before), ("after", after)):
        reported = _facts(results / run_id / NODES / node)
        if reported is None:
            return (f"nothing is known: the node's result in {run_id} cannot be read",)
        facts[when] = reported
    if facts["before"].settings.benchmark_device != facts["after"].settings.benchmark_device:
        return ()
    reported_by = (
        (drift.fact, {names[0]: value for value, names in drift.values.items()}) for drift in find_drift(facts)
    )
    return tuple(f"{fact}: {values.get('before')} -> {values.get('after')}"[:4000] for fact, values in reported_by)


def _facts(directory: Path) -> NodeFacts | None:
    for path in sorted(directory.glob("mlperf_datacenter_*.json")):
        try:
            result = read_record(path, NodeResult)
        except InputError:
            continue
        if result.environment is not None:
            return NodeFacts(result.environment, result.resolved.settings, server_version=server_version(result.engine))
    return None
