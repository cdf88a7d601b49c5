"""A short form of a run: its verdict, its figures, and what to look at first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmark.cluster.groups import as_rows
from benchmark.cluster.render.curve_table import knee_of
from benchmark.cluster.report.amounts import amount, median
from benchmark.cluster.report.headline import UNSURE, advice
from benchmark.cluster.stored.states import IN_PROGRESS, INVALID, PARTIAL, UNFINISHED, VALID
from benchmark.probed import NodeFigure, figures, in_order, ranked
from benchmark.records import ClusterResult, Group, GroupInShort, RunInShort, RunRecord
from benchmark.records.run_list import RunVerdictWord
from benchmark.served import describe_model
from benchmark.text.figures import probe_unit
from benchmark.words import brief

# Most figures of the hardware, if there are no others.
MOST_PROBES = 2
SIMULATED = "simulated: no model was run"
SHARED = "the nodes may share one machine"
NO_SUMMARY = (
    "Its controller was killed, or it is running elsewhere. Once it has ended, -e benchmark_resume={} measures what is "
    "missing."
)
GOES_ON = "Its playbook is still running: what is known of nodes so far is not its result."


def run_in_short(run: RunRecord, result: ClusterResult | None) -> RunInShort:
    """Return a run's entry in a list; `result`: None if it has no summary."""
    if result is not None and result.in_progress:
        result = None  # the summary was made while the run was in progress
    run = as_rows(run)
    asked = run.nodes.values()
    models = {row.model for row in result.nodes if row.model} if result else set()
    models = models or {describe_model(one.settings, one.profile.engine) for one in asked}
    first = advice(result)[0] if result else None
    return RunInShort(
        run_id=run.run_id,
        created_at=run.created_at,
        verdict=_verdict(result),
        profiles=tuple(sorted({one.profile.name for one in asked})),
        models=tuple(sorted({brief(model) for model in models})),
        asked=len(run.nodes),
        counted=result.counted if result else None,
        nodes=tuple(run.nodes),
        system=run.system is not None,
        groups=tuple(_group(one, number, result) for number, one in enumerate(result.groups)) if result else (),
        not_hardware=not_hardware(run, result),
        weight=first.weight if first else UNSURE,
        first=brief(first.title) if first else "It has no summary",
        why=brief(first.text) if first else NO_SUMMARY.format(run.run_id),
    )


def in_progress(short: RunInShort) -> RunInShort:
    """Return the entry of a run in progress: existing figures are of an earlier attempt, or of some nodes only."""
    return short.model_copy(
        update={
            "verdict": IN_PROGRESS,
            "counted": None,
            "groups": (),
            "weight": UNSURE,
            "first": "It is in progress",
            "why": GOES_ON,
        }
    )


def not_hardware(run: RunRecord, result: ClusterResult | None) -> str:
    """Return why a run's figures say nothing about the hardware; empty if they do."""
    shared = any(one.settings.benchmark_shared_machine for one in run.nodes.values())
    simulated = result is not None and any(row.simulated for row in result.nodes)
    return "; ".join(words for words, so in ((SIMULATED, simulated), (SHARED, shared)) if so)


def _group(group: Group, number: int, result: ClusterResult) -> GroupInShort:
    rows = [row for row in result.nodes if row.node in set(group.nodes)]
    probes = () if any(row.metrics for row in rows) else tuple(_probes([figures(row.probes) for row in rows]))
    return GroupInShort(
        label=brief(group.label),
        nodes=len(group.nodes),
        qps=group.qps,
        tokens_per_s=group.tokens_per_s,
        knee=knee_of(result, number),
        probes=probes,
    )


def _probes(found: Sequence[dict[str, NodeFigure]]) -> Iterator[str]:
    """Yield the first figures, each as the median of the nodes."""
    for one in ranked(in_order(found))[:MOST_PROBES]:
        middle = median(each[one.name].median for each in found if one.name in each)
        yield f"{one.words} {amount(middle)}{probe_unit(one.unit)}"


def _verdict(result: ClusterResult | None) -> RunVerdictWord:
    if result is None:
        return UNFINISHED
    if result.partial:
        return PARTIAL
    return VALID if result.verdict.valid else INVALID
