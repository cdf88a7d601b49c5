"""A run in short: its verdict, its figures, and what to look at first."""

from __future__ import annotations

from benchmark.cluster.report.headline import UNSURE, advice
from benchmark.cluster.stored.states import INVALID, PARTIAL, UNFINISHED, VALID, brief
from benchmark.records import ClusterResult, GroupInShort, RunInShort, RunRecord
from benchmark.records.run_list import RunVerdictWord
from benchmark.served import describe_model

SIMULATED = "simulated: no model was run"
SHARED = "the nodes may be one machine"
NO_SUMMARY = "It goes on, or its controller was killed: then -e benchmark_resume={} measures what is missing."


def run_in_short(run: RunRecord, result: ClusterResult | None) -> RunInShort:
    """Return what a list of runs says of one; `result`: None where it has no summary."""
    asked = run.nodes.values()
    models = {row.model for row in result.nodes if row.model} if result else set()
    models = models or {describe_model(one.settings, one.profile.engine) for one in asked}
    first = advice(result)[0] if result else None
    shared = any(one.settings.benchmark_shared_machine for one in asked)
    simulated = result is not None and any(row.simulated for row in result.nodes)
    return RunInShort(
        run_id=run.run_id,
        created_at=run.created_at,
        verdict=_verdict(result),
        profiles=tuple(sorted({one.profile.name for one in asked})),
        models=tuple(sorted({brief(model) for model in models})),
        asked=len(run.nodes),
        counted=result.counted if result else None,
        nodes=tuple(run.nodes),
        groups=tuple(
            GroupInShort(label=brief(one.label), nodes=len(one.nodes), qps=one.qps, tokens_per_s=one.tokens_per_s)
            for one in (result.groups if result else ())
        ),
        not_hardware="; ".join(words for words, so in ((SIMULATED, simulated), (SHARED, shared)) if so),
        weight=first.weight if first else UNSURE,
        first=brief(first.title) if first else "It has no summary",
        why=brief(first.text) if first else NO_SUMMARY.format(run.run_id),
    )


def _verdict(result: ClusterResult | None) -> RunVerdictWord:
    if result is None:
        return UNFINISHED
    if result.partial:
        return PARTIAL
    return VALID if result.verdict.valid else INVALID
