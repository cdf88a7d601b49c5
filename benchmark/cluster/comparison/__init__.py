"""Compare two runs: like nodes with like nodes, each change with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.cluster.comparison.bootstrap import CONFIDENCE, REPLICATES, interval_of_change
from benchmark.cluster.comparison.curves import curve_changes
from benchmark.cluster.comparison.each import node_changes
from benchmark.cluster.comparison.measured import (
    COSTS,
    HIGHER_IS_BETTER,
    METRICS,
    RATES,
    Figure,
    currency_of,
    figure_of,
    judged,
)
from benchmark.cluster.comparison.probes import figures_words, probe_changes, single_changes
from benchmark.cluster.comparison.side import ComparisonKey, Side
from benchmark.cluster.diagnosis.aspects import ENERGY
from benchmark.cluster.one_system import CLUSTER
from benchmark.cluster.results.differences import differences
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.sweep import at_common_step
from benchmark.records import Comparison, GroupChange, MetricChange
from benchmark.records.comparison import Outcome
from benchmark.text.figures import figure
from benchmark.words import plural

# A smaller change is never better or worse, however certain: two runs of one node differ by as much.
FLOOR = 0.02
# Nodes times replicates: with more nodes fewer replicates are needed.
MOST_DRAWS = 40_000
# Most differences between two profiles that are shown.
MOST_SHOWN = 5
LEAST_REPLICATES = 500


def compare(before: Side, after: Side, floor: float = FLOOR) -> Comparison:
    """Return what changed from `before` to `after`. Groups that differ in settings or hardware are not compared."""
    groups: list[GroupChange] = []
    apart: list[str] = []
    refused: list[str] = []
    for like, nodes in after.groups.items():
        if like in before.groups:
            groups.append(compare_nodes(like.label, before.groups[like], nodes, floor))
        elif others := [other for other in before.groups if other.settings == like.settings]:
            apart += [
                f"{_named(before.name, other, before.groups[other])}; {_named(after.name, like, nodes)}: equal "
                "settings, other hardware"
                for other in others
            ]
        else:
            otherwise = [
                [*other.differences(like), *_profiles(theirs[0], nodes[0])] for other, theirs in before.groups.items()
            ]
            nearest = min(otherwise, key=len)
            refused.append(f"{like.label}: measured differently in {before.name}: {'; '.join(nearest)}")
    return Comparison(
        before=before.name,
        after=after.name,
        floor=floor,
        confidence=CONFIDENCE,
        groups=tuple(groups),
        apart=tuple(text[:4000] for text in apart),
        refused=tuple(text[:4000] for text in refused),
        outcome=together(group.outcome for group in groups),
    )


def _profiles(before: LoadedNode, after: LoadedNode) -> list[str]:
    """Return the differences between two profiles with the same name and version, in words."""
    one, other = (node.result.resolved.profile if node.result else None for node in (before, after))
    if one is None or other is None or (one.name, one.version) != (other.name, other.version):
        return []
    # A description does not affect the measurement.
    pairs = differences(other.model_dump(mode="json"), one.model_dump(mode="json"))
    found = [f"the profile's {path} is {now} instead of {was}" for path, now, was in pairs if path != "description"]
    return found[:MOST_SHOWN] + ([f"and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else [])


def compare_nodes(
    label: str, before: Sequence[LoadedNode], after: Sequence[LoadedNode], floor: float = FLOOR
) -> GroupChange:
    """Return what changed between like nodes: those in both runs or, if there are none, all of them."""
    names = {node.node for node in before} & {node.node for node in after}
    note = ""
    if not names:
        note = "different nodes"
    elif len(names) < max(len(before), len(after)):
        note = f"only the {plural(len(names), 'node that is', 'nodes that are')} in both"
    first = [node for node in before if not names or node.node in names]
    second = [node for node in after if not names or node.node in names]
    first, second = at_common_step(first, second)
    curve = tuple(curve_changes(first, second, floor))
    replicates = max(LEAST_REPLICATES, min(REPLICATES, MOST_DRAWS // (len(first) + len(second))))
    system = _is_system(second)
    changes = (
        *(
            _change(metric, figure_of(first, metric), figure_of(second, metric), floor, replicates, system)
            for metric in METRICS
        ),
        *_cost_changes(first, second),
        *probe_changes(first, second, floor),
    )
    each = (*node_changes(first, second, floor), *single_changes(first, second, floor))
    outcomes: list[Outcome] = [one.outcome for one in changes]
    outcomes += [*(one.outcome for one in curve), *(one.outcome for one in each)]
    return GroupChange(
        label=label[:4000],
        nodes=tuple(node.node for node in second),
        system=system,
        before_nodes=len(before),
        after_nodes=len(after),
        changes=changes,
        curve=curve,
        each=each,
        outcome=together(outcomes),
        note=note,
    )


def _cost_changes(before: Sequence[LoadedNode], after: Sequence[LoadedNode]) -> Iterable[MetricChange]:
    """Yield the cost of tokens in both, if there is a price. It is not judged: tokens/s are."""
    currencies = {currency for nodes in (before, after) if (currency := currency_of(nodes))}
    for metric in COSTS if currencies else ():
        was, now = figure_of(before, metric), figure_of(after, metric)
        values: dict[str, Any] = {"metric": metric, "unit": " or ".join(sorted(currencies)), "of": "all"}
        values |= {"before": was.value, "after": now.value, "outcome": "not judged", "note": was.note}
        if was.value is None or now.value is None:
            values["note"] = (was if was.value is None else now).note
        elif len(currencies) > 1:
            values["note"] = "prices in different currencies"
        elif was.value > 0:
            values["change"] = now.value / was.value - 1
        yield MetricChange.model_validate(values)


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Return one outcome for several: the worst of the judged ones."""
    found = set(outcomes)
    order: tuple[Outcome, ...] = ("worse", "better", "within noise", "no difference")
    return next((outcome for outcome in order if outcome in found), "not judged")


def _change(metric: str, before: Figure, after: Figure, floor: float, replicates: int, system: bool) -> MetricChange:
    of = "node" if metric in (*RATES, ENERGY) and not system else "all"
    values: dict[str, Any] = {"metric": metric, "of": of, "before": before.value, "after": after.value}
    if before.value is None or after.value is None or before.value <= 0 or after.value <= 0:
        return MetricChange.model_validate({**values, "outcome": "not judged", "note": "undefined"})
    values["change"] = after.value / before.value - 1
    if before.draw is None or after.draw is None:
        note = before.note or after.note
        return MetricChange.model_validate({**values, "outcome": "not judged", "note": note})
    low, high = interval_of_change(before.draw, after.draw, replicates)
    outcome = judged(values["change"], low, high, floor, higher_is_better=metric in HIGHER_IS_BETTER)
    return MetricChange.model_validate({**values, "low": low, "high": high, "outcome": outcome})


def _is_system(nodes: Sequence[LoadedNode]) -> bool:
    return any(node.result and node.result.resolved.settings.benchmark_system == CLUSTER for node in nodes)


def _named(name: str, like: ComparisonKey, nodes: Sequence[LoadedNode]) -> str:
    if not any(node.metrics for node in nodes):
        return f"{name}, {like.label}: {figures_words(nodes)}"
    qps, tokens = (figure(figure_of(nodes, metric).value) for metric in ("qps", "tokens_per_s"))
    per = "" if _is_system(nodes) else " per node"
    return f"{name}, {like.label}: {qps} QPS and {tokens} tokens/s{per}"
