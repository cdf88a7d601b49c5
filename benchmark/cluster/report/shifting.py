"""What shifted from one run to the next, in the words of the pages."""

from __future__ import annotations

from benchmark.cluster.history.aspects import aspect_in
from benchmark.cluster.report.amounts import amount, share
from benchmark.records import NodeHistory, Shift


def shift_words(history: NodeHistory, shift: Shift) -> str:
    """Return which metric of a node shifted, by how much, and whether more runs are needed to be sure."""
    aspect = aspect_in(history, shift.metric)
    tentative = f"; {shift.runs} run{'s' * (shift.runs > 1)} so far" if shift.tentative else ""
    return (
        f"{aspect.label} {share(shift.change)}, {amount(shift.before)} to {amount(shift.after)}{aspect.unit}: "
        f"{'worse' if shift.worse else 'better'}{tentative}"
    )
