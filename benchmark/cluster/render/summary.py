"""The cluster's result as text for people: `benchmark_summary.txt`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.cluster.cost import cost_words
from benchmark.cluster.datasheet import datasheet_words
from benchmark.cluster.diagnosis.aspects import Aspect
from benchmark.cluster.goodput import goodput_words, serves
from benchmark.cluster.names import members_words, some
from benchmark.cluster.render.curve_table import curve_tables, sweep_words
from benchmark.cluster.render.probe_table import ProbeTable, probe_table, seconds_words
from benchmark.cluster.render.stability import beside, cell, headline, note, table
from benchmark.cluster.roofline import roofline_words
from benchmark.cluster.solo import losers, solo_table
from benchmark.cluster.system_result import nothing_measured, share_words, system_words
from benchmark.code import code_words
from benchmark.loads import load_words
from benchmark.records import (
    ClusterResult,
    Curves,
    Distribution,
    Finding,
    Group,
    Load,
    MeasuredAttempt,
    NodeRow,
    Overlap,
    RunRecord,
    SystemResult,
)
from benchmark.text.columns import finish
from benchmark.text.descriptions import describe_prefix_cache, describe_profile, floor_note
from benchmark.text.figures import energy_words, figure, moment
from benchmark.text.templating import environment
from benchmark.verdict import answer_words
from benchmark.words import brief, percent, plural

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "benchmark_summary.txt.j2"
SHARED = (
    "SHARED MACHINE: benchmark_shared_machine is true. Nodes may be one machine, or share it with other runs: {} does "
    "not describe the hardware."
)
# The percentiles that the table shows.
PERCENTILES = ("p50", "p90", "p99")
# Most profiles or models that the header names; the rest are only counted.
MAX_NAMED = 3
# Most values of a fact that are shown, and characters of each.
MAX_VALUES, MAX_VALUE = 5, 100


@dataclass(frozen=True)
class Section:
    """One group as the template shows it. `heads`: the percentiles' headings, starred where samples are too few.

    `queries`: whether queries were measured; if not, the table of the probes replaces theirs.
    """

    title: str
    rows: tuple[NodeRow, ...]
    heads: dict[str, str]
    note: str
    unstable: str
    queries: bool
    probes: ProbeTable | None
    totals: tuple[tuple[str, str], ...]


def render_cluster(result: ClusterResult, run: RunRecord) -> str:
    """Return the cluster summary, at most `benchmark.text.WIDTH` columns wide."""
    template = environment(TEMPLATES).get_template(TEMPLATE)
    return finish(template.render(view(result, run)))


def view(result: ClusterResult, run: RunRecord) -> dict[str, Any]:
    """Return the variables of the templates that show the cluster's result."""
    drift = _drift(result)
    return {
        "result": result,
        "run": run,
        "profiles": _distinct(describe_profile(asked.profile) for asked in run.nodes.values()),
        "models": _distinct(row.model for row in result.nodes),
        "shared_machine": SHARED.format("their combined result" if result.system else "their sum")
        if any(asked.settings.benchmark_shared_machine for asked in run.nodes.values())
        else "",
        "code": _distinct(code_words(attempt.code) for attempt in run.attempts if attempt.code),
        "simulated": any(row.simulated for row in result.nodes),
        "sections": [_section(group, result) for group in result.groups],
        "together": _together(result),
        "system": _system(result),
        "verdict_of": verdict_of,
        "agreed": _agreed(result),
        "findings": [(finding.node, finding_words(finding)) for finding in result.findings],
        "drift": drift,
        "drift_rows": [
            (hardware, fact, *pair) for hardware, facts in drift.items() for fact, values in facts for pair in values
        ],
        "repeats": headline(result),
        "sweep": sweep_words(result),
        "curves": curve_tables(result),
        "spread": table(result),
        "cell": cell,
        "solo": solo_table(result),
        "lost": some([node for node, _ in losers(result.nodes)]),
        "last_head": "share" if result.system else "verdict",
        "counts": _counts(result),
        "closing": _closing(result),
        "not_counted": [row for row in result.nodes if not (row.counted or row.in_progress)],
        "invalid": [row for row in result.nodes if row.counted and not (row.verdict and row.verdict.valid)],
    }


def _counts(result: ClusterResult) -> str:
    going_on = [row.node for row in result.nodes if row.in_progress]
    more = f", {len(going_on)} in progress: {some(going_on)}" if going_on else ""
    return f"{result.counted} of {result.asked} counted{more}"


def _closing(result: ClusterResult) -> tuple[str, str]:
    """Return the verdict in a word, and why; why a run is partial is at the top, so here only if nothing else is."""
    if result.verdict.valid:
        return "VALID", _enough(result)
    reasons = " ".join(reason for reason in result.verdict.reasons if reason != result.partial)
    if result.in_progress:
        return "IN PROGRESS", reasons or "the verdict comes with the run's end."
    return "INVALID", reasons or result.partial


def _system(result: ClusterResult) -> str:
    """Return what was measured where all nodes are one system, in lines; nothing where each node is a system."""
    found = result.system
    if found is None:
        return ""
    asked = f"one schedule from {found.driver} over {_count(found.servers, 'node')}: figures of one system, not a sum"
    if not found.servers and result.in_progress:
        asked = "in progress"
    elif not found.servers and found.status and not nothing_measured(found):
        asked = f"no figure: the driver ({found.driver}) did not finish measuring"
    elif not found.servers:
        asked = f"nothing was measured; the driver would have been {found.driver}"
    return "\n".join([asked, *found.notes])


def verdict_of(row: NodeRow) -> str:
    """Return the last cell of a node's row: its verdict; for a node of a system, its share of the queries first."""
    valid = row.verdict is not None and row.verdict.valid
    if row.served is None:
        return "valid" if valid else "INVALID"
    return share_words(row) if valid else f"{share_words(row)} INVALID"


def _section(group: Group, result: ClusterResult) -> Section:
    rows, system = result.nodes, result.system
    members = tuple(row for row in rows if row.node in set(group.nodes))
    nodes = system.servers if system else sum(len(row.members) or 1 for row in members)
    shown = [
        spread
        for row in members
        if row.metrics
        for spread in (row.metrics.latency_ms, row.metrics.ttft_ms, row.metrics.tpot_ms)
        if spread is not None
    ]
    probes, queries = probe_table(members), any(row.metrics for row in members)
    queries = queries or probes is None
    starred = {name for spread in shown for name in PERCENTILES if name in spread.insufficient}
    return Section(
        title=f"{group.label}: {_count(nodes, 'node')}, {_count(group.gpus, 'GPU')}",
        rows=members,
        heads={name: name.upper() + ("*" if name in starred else "") for name in PERCENTILES},
        note=floor_note(shown, PERCENTILES),
        unstable=note(members),
        queries=queries,
        probes=probes,
        totals=(
            *_copies(members),
            *_engine(members),
            *(_totals(group, members, system) if queries else ()),
            *_cost(group, members),
            *_goodput(group, members, result.sweep),
            *_limits(members),
            *_answers(members),
            *_prefix_cache(members),
            *_probing(members),
        ),
    )


def _copies(members: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield which nodes serve one copy of the model together; nothing where each has its own copy."""
    lines = [f"{row.node}: {members_words(row.members)}, one copy of the model" for row in members if row.members]
    if lines:
        yield "Groups", "\n".join(lines)


def _load(group: Group, load: Load) -> Iterable[tuple[str, str]]:
    """Yield how many users there were at once, and the speed for each; nothing for one at a time."""
    if load.concurrency is not None and load.concurrency > 1:
        reads = group.tpot_ms and group.tpot_ms.p50 > 0 and f"; {figure(1000 / group.tpot_ms.p50)} tokens/s for each"
        yield "Load", load_words(load, "cuda" if group.gpus else "cpu") + (reads or "")


def _totals(group: Group, members: Sequence[NodeRow], system: SystemResult | None) -> Iterable[tuple[str, str]]:
    attempts = len({row.attempt for row in members})
    apart = f", measured in {attempts} attempts and never all at once" if attempts > 1 else ""
    summed = plural(len(group.nodes), "group" if all(row.members for row in members) else "node")
    fleet = "" if len(group.nodes) == 1 else f" (the sum over {summed}{apart}: a fleet figure)"
    if system:
        fleet = f" ({system_words(group, system)})"
    tokens = f"{figure(group.tokens_per_s)} tokens/s{beside(group, 'tokens_per_s')}"
    yield "Cluster", f"{figure(group.qps)} QPS{beside(group, 'qps')}, {tokens}{fleet}"
    if group.gpus:
        yield "Per GPU", f"{figure(group.qps_per_gpu)} QPS, {figure(group.tokens_per_s_per_gpu)} tokens/s on average"
    if load := next((row.load for row in members if row.load), None):
        yield from _load(group, load)
    queries = group.queries
    yield (
        "Queries",
        f"{queries.completed} of {queries.planned} completed, {queries.failed} failed, {queries.unfinished} unfinished",
    )
    if group.latency_ms is not None:
        spreads = (("latency", group.latency_ms), ("TTFT", group.ttft_ms), ("TPOT", group.tpot_ms))
        reported = [(name, spread, beside(group, f"{name.lower()}_ms.p99")) for name, spread in spreads if spread]
        yield "P99" if system else "Pooled P99", _pooled(reported)
    if group.energy_joules is not None:
        of = "" if group.energy_nodes == len(group.nodes) else f" of {group.energy_nodes} of {len(group.nodes)} nodes"
        yield (
            "Energy",
            f"{energy_words(group.energy_joules, group.tokens_per_joule, group.joules_per_query)}{of}, by the GPUs' "
            "own counters, not the wall",
        )
    if group.worst_p99_node is not None:
        yield "Worst node", f"{group.worst_p99_node}: P99 latency {figure(group.worst_p99_latency_ms)} ms"


def _cost(group: Group, members: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield the cost of a million tokens; nothing where no node has a price."""
    if words := cost_words(group, members):
        yield "Cost", words


def _goodput(group: Group, members: Sequence[NodeRow], sweep: Curves | None) -> Iterable[tuple[str, str]]:
    """Yield the share answered within the limits, and the users served at once; nothing without limits."""
    if group.goodput is not None:
        yield "Goodput", goodput_words(group.goodput)
        if words := serves(group, members, sweep):
            yield "Users", words
    elif any(row.goodput for row in members):
        lacking = some([row.node for row in members if row.goodput is None])
        why = f"undefined for {lacking}" if lacking else "the nodes have different limits"
        yield "Goodput", f"not for the whole group: {why}"


def _engine(members: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield which nodes ran another engine than the profile's, and why; nothing where none did."""
    nodes: dict[str, list[str]] = {}
    for row in members:
        if row.fallback:
            nodes.setdefault(row.fallback, []).append(row.node)
    if nodes:
        yield "Engine", "\n".join(f"{some(names)}: {brief(words, 400)}" for words, names in nodes.items())


def _limits(rows: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield how near nodes come to the limits of their GPUs, and these to their datasheet, where known."""
    if words := roofline_words(rows):
        yield "Roofline", words
    if words := datasheet_words(row.probes for row in rows if row.probes):
        yield "Datasheet", words


def _answers(rows: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield notes on the answers of valid nodes; an invalid node's reason has its own."""
    nodes: dict[str, list[str]] = {}
    for row in rows:
        if row.metrics and row.verdict and row.verdict.valid:
            for words in answer_words(row.metrics):
                nodes.setdefault(words, []).append(row.node)
    if nodes:
        yield "Answers", "\n".join(f"{some(names)}: {words}" for words, names in nodes.items())


def _probing(members: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield how long the probes took, and what they could not measure on valid nodes."""
    if words := seconds_words(members):
        yield "Probes", words
    nodes: dict[str, list[str]] = {}
    for row in members:
        if row.probes and row.verdict and row.verdict.valid:
            for words in row.probes.notes:
                nodes.setdefault(brief(words, 200), []).append(row.node)
    lines = [f"{some(names)}: {words}" for words, names in nodes.items()]
    more = [f"and {len(lines) - MAX_VALUES} more"] if len(lines) > MAX_VALUES else []
    if lines:
        yield "Not probed", "\n".join([*lines[:MAX_VALUES], *more])


def _prefix_cache(members: Sequence[NodeRow]) -> Iterable[tuple[str, str]]:
    """Yield how many prompt tokens came from servers' caches, a line for each distinct text; none without servers."""
    nodes: dict[str, list[str]] = {}
    for row in members:
        if words := describe_prefix_cache(row.prefix_cache):
            nodes.setdefault(words, []).append(row.node)
    lines = [words if len(names) == len(members) else f"{some(names)}: {words}" for words, names in nodes.items()]
    more = [f"and {len(lines) - MAX_VALUES} more"] if len(lines) > MAX_VALUES else []
    if lines:
        yield "Cache", "; ".join([*(brief(line, 400) for line in lines[:MAX_VALUES]), *more])


def _pooled(spreads: Sequence[tuple[str, Distribution, str]]) -> str:
    words = ", ".join(f"{name} {figure(spread.p99)} ms{unstable}" for name, spread, unstable in spreads)
    few = floor_note([spread for _, spread, _ in spreads], ["p99"])
    return f"{words}; {few}" if few else words


def _together(result: ClusterResult) -> str:
    if result.attempts:
        return "\n".join([*(_attempt(one) for one in result.attempts), "never all at once"])
    return _overlap(result.overlap, "all counted nodes") if result.overlap and result.counted > 1 else ""


def _attempt(one: MeasuredAttempt) -> str:
    """Return when an attempt was made, which nodes it measured, and how far several overlapped."""
    head = f"attempt {one.number}, {moment(one.at)}: {some(one.nodes)}"
    return f"{head}; {_overlap(one.overlap, 'these')}" if one.overlap and len(one.nodes) > 1 else head


def _overlap(seen: Overlap, who: str) -> str:
    share = f" ({seen.together_s / seen.any_s:.0%})" if seen.any_s else ""
    words = f"{who} together for {seen.together_s:.1f} s of {seen.any_s:.1f} s{share}"
    if seen.skew_ms is not None:
        own = " by their own clocks" if seen.uncertainty_ms is None else f" (+- {_ms(seen.uncertainty_ms)})"
        words += f", started within {_ms(seen.skew_ms)}{own}"
    late = [f"{node} started {_ms(late_ms)} after the agreed time" for node, late_ms in seen.late_ms.items()]
    more = [f"and {len(late) - MAX_NAMED} more were late"] if len(late) > MAX_NAMED else []
    return "\n".join([words, *late[:MAX_NAMED], *more])


def _ms(value: float) -> str:
    return f"{figure(round(value, 2))} ms"


def _enough(result: ClusterResult) -> str:
    apart = f" They were measured in {len(result.attempts)} attempts, never all at once." if result.attempts else ""
    if result.counted == result.asked:
        return f"every node of the run is counted and valid.{apart}"
    counted = f"{result.counted} of {_count(result.asked, 'node')} are counted and valid"
    return f"{counted}, which is enough for benchmark_min_nodes; the others are listed above.{apart}"


def _agreed(result: ClusterResult) -> str:
    """Return how many of each set of like nodes give the same greedy tokens, a line for each set."""
    lines = []
    for agreement in result.agreements:
        nodes, differ = len(agreement.nodes), len(agreement.disagreements)
        lines.append(
            f"{nodes - differ} of {nodes} like nodes give the same greedy tokens ({agreement.prompts} prompts)"
        )
    return "\n".join(lines)


def finding_words(finding: Finding) -> str:
    """Return what is wrong with a slow node and why, a line each."""
    aspect = Aspect(finding.metric, higher_is_better=True, own_unit=finding.unit)
    place = f"{finding.place}: " if finding.place else ""
    lines = [
        f"{place}{aspect.label} is {figure(finding.value)}{aspect.unit}, {percent(finding.change, 0)} against "
        f"{figure(finding.expected)}{aspect.unit}, {finding.against}"
    ]
    if finding.also:
        lines.append(f"also {'; '.join(finding.also)}")
    lines.append(f"probable cause: {finding.cause}" if finding.cause else "no cause seen")
    return "\n".join([*lines, *finding.evidence])


def _drift(result: ClusterResult) -> dict[str, list[tuple[str, list[tuple[str, str]]]]]:
    """Return the facts in which nodes with the same hardware differ, by hardware, and which nodes have which value."""
    shown: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {}
    for one in result.drift:
        values = [(brief(value, MAX_VALUE), some(nodes)) for value, nodes in list(one.values.items())[:MAX_VALUES]]
        rest = len(one.values) - len(values)
        values += [(f"and {rest} more values", "")] if rest > 0 else []
        shown.setdefault(brief(one.hardware, MAX_VALUE), []).append((one.fact, values))
    return shown


def _distinct(texts: Iterable[str]) -> str:
    """Return the distinct texts, one per line."""
    different = sorted(set(texts))
    more = [f"and {len(different) - MAX_NAMED} more"] if len(different) > MAX_NAMED else []
    return "\n".join([*different[:MAX_NAMED], *more])


def _count(number: int, what: str) -> str:
    return plural(number, what) if number else f"no {what}s"
