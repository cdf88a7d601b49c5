"""The spread of a run's repeats as the summaries show it: marks beside the figures, and what all repeats came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.records import ClusterResult, Group, NodeRow, Spread
from benchmark.repeats import UNSTABLE_CV
from benchmark.text.figures import figure
from benchmark.verdict import label, unit, value_of

# Follows an unstable figure in a table.
MARK = "~"
# Metrics whose coefficient of variation is shown for each node; the JSON has all.
SHOWN = ("qps", "latency_ms.p50", "latency_ms.p99", "ttft_ms.p99")


def cell(row: NodeRow, metric: str) -> str:
    """Return a node's figure, marked if it is not stable."""
    value = value_of(row.metrics, metric) if row.metrics else None
    return figure(value) + (MARK if _unstable(row.spread, metric) else "")


def beside(group: Group, metric: str) -> str:
    """Return the note after a group's figure; empty if it is stable or there is one repeat."""
    one = _unstable(group.spread, metric)
    return f" (NOT STABLE: {figure(one.lowest)} to {figure(one.highest)} over the repeats)" if one else ""


def note(rows: Sequence[NodeRow]) -> str:
    """Return what the mark means; empty if no figure has it."""
    if all(one.stable for row in rows for one in row.spread):
        return ""
    return f"not stable: the repeats differ by more than {UNSTABLE_CV:.0%} (coefficient of variation)"


def headline(result: ClusterResult) -> str:
    """Return which repeat all figures are of, and the result of each, in lines; empty if there is one repeat."""
    found = result.repeats
    if found is None:
        return ""
    by = label(found.metric)
    lines = [
        f"{len(found.rows)} with the model loaded once; all figures are of repeat {found.chosen}, the median by {by}"
    ]
    for row in found.rows:
        together = f", together for {row.overlap.together_s:.1f} s" if row.overlap and result.counted > 1 else ""
        valid = f"{row.valid} of {result.counted} valid"
        if result.system:
            valid = "valid" if row.valid else "invalid"
        lines.append(
            f"repeat {row.number}: {label(found.metric)} {figure(row.value)}{unit(found.metric)}, {valid}{together}"
        )
    return "\n".join(lines)


def table(result: ClusterResult) -> dict[str, Any]:
    """Return the spread of the deciding metric and the CVs of others, for each node and each group of several."""
    if result.repeats is None:
        return {}
    rows = []
    for number, group in enumerate(result.groups, start=1):
        # A part of a system has no spread of its own.
        members = [row for row in result.nodes if row.node in group.nodes and (row.spread or row.served is None)]
        rows += [_row(row.node, row.spread, result.repeats.metric) for row in members]
        if len(group.nodes) > 1 or result.system:
            name = "all" if len(result.groups) == 1 else f"group {number}"
            rows.append(_row(name, group.spread, result.repeats.metric))
    return {"metric": label(result.repeats.metric) + unit(result.repeats.metric), "rows": rows}


def _row(name: str, spread: Sequence[Spread], metric: str) -> dict[str, Any]:
    known = {one.metric: one for one in spread}
    decides = known.get(metric)
    cvs = [(f"{one.cv:.1%}" + ("" if one.stable else MARK)) if one else "-" for one in map(known.get, SHOWN)]
    return {
        "name": name,
        "median": decides.median if decides else None,
        "lowest": decides.lowest if decides else None,
        "highest": decides.highest if decides else None,
        "cvs": cvs,
    }


def _unstable(spread: Sequence[Spread], metric: str) -> Spread | None:
    return next((one for one in spread if one.metric == metric and not one.stable), None)
