"""The top of the page: valid or not, and the one thing to look at first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.cluster.arithmetic import disagreement_words
from benchmark.cluster.diagnosis.aspects import Aspect
from benchmark.cluster.names import some
from benchmark.cluster.report.amounts import amount, share
from benchmark.cluster.solo import losers
from benchmark.probed import PREFIX
from benchmark.records import ClusterResult, Finding, Spread
from benchmark.text.descriptions import floor_note
from benchmark.verdict import label, unit
from benchmark.words import sentences

BAD, UNSURE, FINE = "bad", "unsure", "fine"
MAX_REASON = 400


@dataclass(frozen=True)
class Advice:
    """What to look at, why, and how urgent it is: `bad`, `unsure` or `fine`. `target`: the page's section about it."""

    weight: str
    title: str
    text: str
    target: str


def advice(result: ClusterResult) -> list[Advice]:
    """Return what to look at, most important first: what decides the verdict, what is slow, what is uncertain."""
    found = list(_advice(result))
    return found or [_fine(result)]


def _advice(result: ClusterResult) -> Iterator[Advice]:
    if result.partial:
        weight, title = (BAD, "The run was ended early")
        if result.in_progress:
            weight, title = UNSURE, "The run is in progress"
        yield Advice(weight, title, result.partial, "nodes")
    missing = [row for row in result.nodes if not (row.counted or row.in_progress)]
    if missing:
        first = missing[0]
        more = f" Also not counted: {some([row.node for row in missing[1:]])}." if len(missing) > 1 else ""
        yield Advice(BAD, f"{first.node} is not counted", f"{_sentences(first.reason)}{more}", "not-counted")
    for agreement in result.agreements:
        for one in agreement.disagreements[:1]:
            text = f"{disagreement_words(one)} Like nodes must agree: this one computes something else."
            yield Advice(BAD, f"{one.node} gives other answers than its peers", text, "findings")
    invalid = [row for row in result.nodes if row.counted and not (row.verdict and row.verdict.valid)]
    slow = {finding.node: finding for finding in reversed(result.findings)}
    if invalid:
        first = next((row for row in invalid if row.node in slow), invalid[0])
        more = f" Also invalid: {some([r.node for r in invalid if r is not first])}."
        text = _sentences(first.reason) + (more if len(invalid) > 1 else "")
        if first.node in slow:
            text += f" {finding_words(slow[first.node])}"
        yield Advice(BAD, f"{first.node} is invalid", text, "invalid")
    for finding in result.findings:
        yield Advice(BAD, slow_words(finding), finding_words(finding), "findings")
    if result.verdict.reasons and not missing and not invalid and not result.agreements:
        yield Advice(BAD, "The run is invalid", " ".join(result.verdict.reasons), "nodes")
    if result.problems:
        yield Advice(UNSURE, "A file was refused", result.problems[0], "files")
    if result.overlap and result.overlap.late_ms:
        node, late_ms = next(iter(result.overlap.late_ms.items()))
        yield Advice(UNSURE, f"{node} began late", f"{amount(late_ms)} ms after the agreed time.", "timeline")
    unsteady = [one for group in result.groups for one in group.spread if not one.stable]
    if unsteady:
        yield Advice(UNSURE, "The repeats differ", _unsteady_words(unsteady), "repeats")
    if lost := losers(result.nodes):
        node, solo = lost[0]
        more = f" Also slower: {some([name for name, _ in lost[1:]])}." if len(lost) > 1 else ""
        text = (
            f"QPS is {amount(solo.together)} together and {amount(solo.alone)} alone ({share(solo.change)}). Look at "
            f"what the nodes share: power, cooling, storage.{more}"
        )
        yield Advice(UNSURE, f"{node} is slower together than alone", text, "alone")
    for drift in result.drift[:1]:
        text = f"Nodes with {drift.hardware} have {len(drift.values)} different values of {drift.fact}."
        yield Advice(UNSURE, "Nodes that should be alike differ", text, "differences")


def _unsteady_words(unsteady: Sequence[Spread]) -> str:
    first, others = unsteady[0], dict.fromkeys(label(one.metric) for one in unsteady)
    also = [name for name in others if name != label(first.metric)]
    return (
        f"{label(first.metric)} went from {amount(first.lowest)} to {amount(first.highest)}{unit(first.metric)}. "
        + (f"Also not stable over the repeats: {', '.join(also)}. " if also else "")
        + "Find out which repeat stands out, and what else the nodes were doing in it. Until then, such a figure "
        "cannot be compared with another run's."
    )


def _sentences(reason: str) -> str:
    """Return a reason's lines as one short paragraph."""
    text = sentences(reason)
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


def _fine(result: ClusterResult) -> Advice:
    compared = any(len(group.nodes) > 1 for group in result.groups)
    slow = "and none was found to be slow" if compared else "and there was no like node to compare it with"
    text = f"Every node of the run is counted and valid, {slow}."
    pooled = [group.latency_ms for group in result.groups if group.latency_ms]
    if note := floor_note(pooled, ["p99"]):
        text += f" The P99 is {note}: it shows whether something is wrong, not what the cluster can do."
    queries = any(row.metrics or not row.probes for row in result.nodes)
    return Advice(FINE, "Nothing stands out", text, "distributions" if queries else "hardware")


def verdict_words(result: ClusterResult) -> str:
    """Return what the verdict rests on, in one or more sentences."""
    if not result.verdict.valid:
        return " ".join(result.verdict.reasons)
    if result.counted == result.asked:
        return "Every node of the run is counted and valid."
    return (
        f"{result.counted} of {result.asked} nodes are counted and valid, which is enough for benchmark_min_nodes. The "
        "others are listed below."
    )


def slow_words(finding: Finding) -> str:
    """Return what is slow: a node, one of its GPUs, or one part of its hardware."""
    if finding.place:
        return f"{finding.place} of {finding.node} is slow"
    if finding.metric.startswith(PREFIX):
        return f"{finding.node} is slow in one thing: {label(finding.metric)}"
    return f"{finding.node} is slow"


def finding_words(finding: Finding) -> str:
    """Return how much slower, against what, and why."""
    aspect = Aspect(finding.metric, higher_is_better=True, own_unit=finding.unit)
    place = f"{finding.place}: " if finding.place else ""
    cause = f"Probable cause: {finding.cause.rstrip('.')}." if finding.cause else "No cause was seen."
    return (
        f"{place}{aspect.label} is {amount(finding.value)}{aspect.unit}, {share(finding.change)} against "
        f"{amount(finding.expected)}{aspect.unit}, {finding.against.rstrip('.')}. {cause}"
    )
