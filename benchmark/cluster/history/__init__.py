"""Every node's trend over all stored runs with the same settings: when it shifted, and what drifted then."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmark.cluster.diagnosis.aspects import ASPECTS, Aspect, aspects_for
from benchmark.cluster.drift import NodeFacts, find_drift
from benchmark.cluster.history.aspects import probe_aspects
from benchmark.cluster.history.changepoint import LEAST_SIDE, change_points
from benchmark.cluster.names import natural, some
from benchmark.cluster.stored.index import runs_up_to, stored_runs
from benchmark.cluster.stored.read import StoredNode, StoredRun
from benchmark.cluster.stored.states import IN_PROGRESS, INVALID, PARTIAL, UNFINISHED, VALID
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.records import DriftAt, History, HistoryPoint, NodeHistory, NodeResult, NodeRuns, RunOfNode, Shift
from benchmark.rundir import NODE_RESULTS, NODES
from benchmark.served import server_version

__all__ = ["ASPECTS", "history_of_run", "node_history", "recent_histories"]

# A node's newest runs: how many are listed, and how many are counted by outcome.
MOST_LISTED = 10
# Most nodes that a message names.
MOST_NAMED = 20

Series = list[tuple[StoredRun, StoredNode]]
"""The runs in which one node was counted with one comparison key, oldest first."""


def node_history(results: Path, node: str = "") -> History:
    """Return every node's history in a results directory, or one node's.

    Raises InputError if there is no such directory, or no such node in it.
    """
    skipped: list[str] = []
    runs = stored_runs(results, skipped)
    names = sorted({name for run in runs for name in run.names}, key=natural)
    if node and node not in names:
        there = f"nodes: {some(names, MOST_NAMED)}" if names else "there is no run"
        raise InputError(f"{node}: no run in {results} has a node of this name; {there}.")
    wanted = [node] if node else names
    return History(
        nodes=tuple(_history(results, series) for series in _series(runs, wanted)),
        runs=tuple(_asked(runs, name) for name in wanted),
        skipped=tuple(text[:4000] for text in skipped),
    )


def history_of_run(run_dir: Path, most: int) -> dict[str, NodeHistory]:
    """Return, for each counted node of a run, its newest `most` runs of the same kind, up to this one.

    Raises InputError if the results directory cannot be read.
    """
    results, own = run_dir.parent, run_dir.name
    runs = runs_up_to(run_dir)
    names = runs[-1].names if runs else []
    ending = [series for series in _series(runs, names) if series[-1][0].run_id == own]
    return {series[0][1].node: _history(results, series[-most:]) for series in ending}


def recent_histories(results: Path, runs: Sequence[StoredRun], most: int) -> list[tuple[StoredNode, NodeHistory]]:
    """Return each node's newest `most` runs of each kind, without what drifted.

    What drifted is in the nodes' own results, which are not read here.
    """
    names = sorted({name for run in runs for name in run.names}, key=natural)
    return [(series[-1][1], _history(results, series[-most:], drift=False)) for series in _series(runs, names)]


def _series(runs: Sequence[StoredRun], names: Sequence[str]) -> list[Series]:
    """Return the runs in which a node was counted, for each node and comparison key; a node's oldest series first."""
    found: dict[tuple[str, str], Series] = {}
    for name in names:
        for run in runs:
            one = run.node(name)
            if one is not None and one.delivered and one.comparison_key:
                found.setdefault((name, one.comparison_key), []).append((run, one))
    return list(found.values())


def _asked(runs: Sequence[StoredRun], name: str) -> NodeRuns:
    """Return how a node's newest runs of any kind ended, and how many of them failed."""
    each = [(run, one) for run in runs if (one := run.node(name)) is not None]
    shown = [
        RunOfNode(
            run_id=run.run_id,
            created_at=run.created_at,
            profile=one.kind[0],
            state=one.state,
            stage=one.stage,
            reason=one.reason,
        )
        for run, one in each[-MOST_LISTED:]
    ]
    failed = [one for one in shown if one.state not in (VALID, INVALID, PARTIAL, UNFINISHED, IN_PROGRESS)]
    stages = Counter(one.stage for one in failed if one.stage)
    return NodeRuns(node=name, count=len(each), newest=tuple(shown), failed=len(failed), failed_in=dict(stages))


def _history(results: Path, runs: Series, drift: bool = True) -> NodeHistory:
    first = runs[0][1]
    units = {metric: unit for _, one in runs for metric, unit in one.units.items()}
    aspects = (*aspects_for(first.rate), *probe_aspects(units))
    shifts = [shift for aspect in aspects for shift in _shifts(runs, aspect)]
    at = {shift.run_id: shift.previous_run_id for shift in shifts}
    return NodeHistory(
        node=first.node,
        label=first.label,
        comparison_key=first.comparison_key,
        units=units,
        points=tuple(
            HistoryPoint(run_id=run.run_id, created_at=run.created_at, valid=one.state == VALID, values=one.values)
            for run, one in runs
        ),
        shifts=tuple(shifts),
        drift=tuple(
            DriftAt(run_id=run_id, facts=_drifted(results, first.node, at[run_id], run_id))
            for run_id in (sorted(at) if drift else ())
        ),
    )


def _shifts(runs: Series, aspect: Aspect) -> list[Shift]:
    known = [(run.run_id, one.values[aspect.metric]) for run, one in runs if aspect.metric in one.values]
    values = [value for _, value in known]
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
                run_id=known[cut][0],
                previous_run_id=known[cut - 1][0],
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
    """Return a sentence for each fact of the node that differs between two runs."""
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
    for path in sorted(directory.glob(NODE_RESULTS)):
        try:
            result = read_record(path, NodeResult)
        except InputError:
            continue
        if result.environment is not None:
            return NodeFacts(result.environment, result.resolved.settings, server_version=server_version(result.engine))
    return None
