"""The hardware section: a chart for each probe with the nodes ranked, and their GPUs as marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.cluster.names import natural
from benchmark.cluster.report.amounts import amount, median, share
from benchmark.cluster.report.dots import MOST_NAMED, Axis, Dot, Strip, at_right, dot_charts
from benchmark.cluster.report.parts import Chart, NodeGroup, Table
from benchmark.cluster.report.sections import MOST_ROWS
from benchmark.probed import NodeFigure, figures, in_order, ranked
from benchmark.text.figures import probe_unit, probe_value
from benchmark.words import plural

# Most marks in all charts of a group; with more, only each node's median is drawn, and its worst value if it is off.
MOST_MARKS = 1000

Found = Mapping[str, Mapping[str, NodeFigure]]
"""Node -> name of the figure -> figure."""


@dataclass(frozen=True)
class Probed:
    """A group's charts with their legend, all its figures in one table, and what could not be measured."""

    like: NodeGroup
    charts: Sequence[Chart]
    legend: str
    table: Table
    folded: bool
    notes: Sequence[str]


def probing(like: NodeGroup, charted: bool = True) -> Probed | None:
    """Return what the page shows of a group's probes; None where no node was probed."""
    found = {node: each for node, row in like.rows.items() if (each := figures(row.probes))}
    if not found:
        return None
    shown = in_order(found.values())
    charts = [chart for one in ranked(shown) if (chart := _chart(like, one, found))] if charted else []
    notes = [f"{node}: {note}" for node, row in like.rows.items() if row.probes for note in row.probes.notes]
    return Probed(
        like=like,
        charts=charts,
        legend=_legend(found) if charts else "",
        table=_every(like, shown, found),
        folded=len(found) > MOST_ROWS,
        notes=notes[:MOST_ROWS],
    )


def tiles(like: NodeGroup) -> list[tuple[str, str, str]]:
    """Return (value, unit, meaning) of a group's first figure of each unit: the median of its nodes."""
    found = {node: figures(row.probes) for node, row in like.rows.items()}
    shown = {one.unit: one for one in reversed(ranked(in_order(found.values())))}
    return [
        (amount(_middle(one.name, found)), one.unit, f"{one.words}, {_of(len(found))}")
        for one in ranked(in_order(found.values()))
        if shown[one.unit] is one
    ]


def _of(nodes: int) -> str:
    return "of one node" if nodes == 1 else f"the median of {nodes} nodes"


def _middle(name: str, found: Found) -> float | None:
    return median(each[name].median for each in found.values() if name in each)


def _legend(found: Found) -> str:
    """Return the charts' legend."""
    parts = ["the axes do not start at zero"]
    if len(found) > 1:
        parts.insert(0, "the line is the median of the nodes; the best are first")
    if any(len(one.places) > 1 for each in found.values() for one in each.values()):
        which = "" if len(found) <= MOST_NAMED else " that are clearly worse than it"
        parts.insert(0, f"hollow: its GPUs or pairs of GPUs{which}")
        parts.insert(0, "filled: the median of a node")
    words = "; ".join(parts)
    end = "the difference to the line, or in red the GPU that is off" if len(found) > 1 else "the GPU that is off"
    at_end = at_right([Strip(node, ()) for node in found], end)
    return f"{words[0].upper()}{words[1:]}{at_end}."


def _chart(like: NodeGroup, one: NodeFigure, found: Found) -> Chart | None:
    """Return the chart of one figure; None where there is one value."""
    better = -1 if one.better == "higher" else 1
    nodes = [node for node in sorted(found, key=natural) if one.name in found[node]]
    nodes.sort(key=lambda node: better * found[node][one.name].median)
    middle = _middle(one.name, found) or 0.0
    has = [found[node][one.name] for node in nodes]
    if sum(len(each.places) for each in has) < 2:
        return None
    every = sum(len(each.places) for each in has) <= MOST_MARKS and len(has) <= MOST_NAMED
    strips = [
        _strip(node, each, middle if len(nodes) > 1 else None, every) for node, each in zip(nodes, has, strict=True)
    ]
    words = (
        f"{one.words} of {plural(len(nodes), 'node')}, best first; the median is {amount(middle)}"
        f"{probe_unit(one.unit)}. "
        "The table below has the values."
    )
    axis = Axis(one.unit, middle, line=len(nodes) > 1)
    # A drawing of many nodes is large, and stays readable when scaled down.
    wide, narrow = dot_charts(f"probe-{one.name}", like, strips, axis, words, narrow=every)
    return Chart(
        title=_title(one),
        note="each pair of GPUs" if any(place.peer is not None for place in has[0].places) else "",
        wide=wide,
        narrow=narrow,
        tables=[_table(one, nodes, has, middle)],
    )


def _title(one: NodeFigure) -> str:
    words = one.words.replace("cpu", "CPU")
    return f"{words[0].upper()}{words[1:]}"


def _strip(node: str, one: NodeFigure, middle: float | None, every: bool) -> Strip:
    others = [
        Dot(("probe", one.name, node, place.words), place.value, filled=False)
        for place in one.places
        if len(one.places) > 1 and (every or (one.off is not None and place is one.worst))
    ]
    word = share(one.median / middle - 1) if middle else ""
    if one.off is not None:
        word = f"{one.worst.words.removeprefix('GPU ')}: {share(one.off)}"
    dots = [*others, Dot(("probe", one.name, node), one.median)]
    return Strip(node, dots, word, alarm=one.off is not None)


def _table(one: NodeFigure, nodes: Sequence[str], has: Sequence[NodeFigure], middle: float) -> Table:
    heads = ["node", "median" if one.places[0].gpu is not None else "value", "to the median"]
    several = any(len(each.places) > 1 for each in has)
    heads += ["worst", "where", "to the node's median"] if several else []
    rows = []
    for node, each in zip(nodes, has, strict=True):
        cells = [node, amount(each.median), share(each.median / middle - 1 if middle else None)]
        if several:
            of_node = each.worst.value / each.median - 1 if each.median else None
            cells += [amount(each.worst.value), each.worst.words, share(of_node)]
        rows.append(cells)
    return Table(f"{one.words}{',' if one.unit else ''}{probe_unit(one.unit)}", heads, rows)


def _every(like: NodeGroup, shown: Sequence[NodeFigure], found: Found) -> Table:
    """Return a table of all figures: a row for each node, and the nodes' median."""
    heads = ["node", *(f"{one.words}{probe_unit(one.unit)}" for one in shown), "verdict"]
    rows = []
    for node in (name for name in sorted(found, key=natural)):
        verdict = like.rows[node].verdict
        cells = (_cell(found[node].get(one.name)) for one in shown)
        rows.append([node, *cells, "valid" if verdict and verdict.valid else "invalid"])
    if len(found) > 1:
        rows.append(["median", *(_put(_middle(one.name, found), one.unit) for one in shown), ""])
    return Table("All figures: the median of each node", heads, rows)


def _cell(one: NodeFigure | None) -> str:
    if one is None:
        return "-"
    worst = f" ({_put(one.worst.value, one.unit)} on {one.worst.words})" if one.off is not None else ""
    return _put(one.median, one.unit) + worst


def _put(value: float | None, unit: str) -> str:
    return probe_value(value, unit) if unit in ("", "share") else amount(value)
