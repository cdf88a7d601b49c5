"""The table of a group's probes: a row for each node, a column for each figure, in several blocks."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmark.probed import NodeFigure, figures, in_order
from benchmark.records import NodeRow
from benchmark.text.columns import clean
from benchmark.text.figures import figure, probe_value, worst_words

# Columns of a block, and a column's width including the space before it: a block and a verdict fit a terminal.
COLUMNS, WIDTH = 5, 10
# Marks a value of which one GPU, or pair, is clearly worse.
MARK = "!"
MOST_NOTES = 20
MEDIAN = "median"


@dataclass(frozen=True)
class Block:
    """Some figures of all nodes. `heads`: each column's words, in lines of equal number.

    `rows`: node, cells and verdict; the last of several is the nodes' median, without a verdict.
    """

    names: tuple[str, ...]
    heads: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]


@dataclass(frozen=True)
class ProbeTable:
    """The blocks, and a sentence for each marked value."""

    blocks: tuple[Block, ...]
    notes: tuple[str, ...]


def probe_table(rows: Sequence[NodeRow]) -> ProbeTable | None:
    """Return the table of the probed nodes; None if there are none."""
    found = {row.node: figures(row.probes) for row in rows if row.probes}
    shown = in_order(found.values())
    if not shown:
        return None
    verdicts = {row.node: "valid" if row.verdict and row.verdict.valid else "INVALID" for row in rows}
    blocks = [_block(shown[start : start + COLUMNS], found, verdicts) for start in range(0, len(shown), COLUMNS)]
    notes = list(_notes(found))
    more = [f"and {len(notes) - MOST_NOTES} more: the nodes' own texts list all"] if len(notes) > MOST_NOTES else []
    return ProbeTable(tuple(blocks), (*notes[:MOST_NOTES], *more))


def median_of(name: str, nodes: Sequence[dict[str, NodeFigure]]) -> float | None:
    """Return the median over the nodes' medians of a figure; None if no node has it."""
    values = [each[name].median for each in nodes if name in each]
    return statistics.median(values) if values else None


def seconds_words(rows: Sequence[NodeRow]) -> str:
    """Return how long the probes took on each node."""
    taken = sorted(row.probes.seconds for row in rows if row.probes)
    if not taken:
        return ""
    span = dict.fromkeys(figure(taken[place]) for place in (0, -1))
    return f"{' to '.join(span)} s" + (" on each node" if len(taken) > 1 else "")


def _block(
    shown: Sequence[NodeFigure], found: Mapping[str, dict[str, NodeFigure]], verdicts: Mapping[str, str]
) -> Block:
    heads = [_head(one) for one in shown]
    lines = max(len(words) for words in heads)
    rows = [(node, tuple(_cell(each.get(one.name)) for one in shown), verdicts[node]) for node, each in found.items()]
    if len(found) > 1:
        middle = tuple(probe_value(median_of(one.name, list(found.values())), one.unit) for one in shown)
        rows.append((MEDIAN, middle, ""))
    return Block(
        names=tuple(f"{one.words}, {one.unit}" if one.unit not in ("", "share") else one.words for one in shown),
        heads=tuple(zip(*([""] * (lines - len(words)) + words for words in heads), strict=True)),
        rows=tuple(rows),
    )


def _head(one: NodeFigure) -> list[str]:
    """Return a figure's name in lines that fit a column, with its unit below."""
    lines = [""]
    for word in clean(one.words).split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) < WIDTH:
            lines[-1] = joined
        else:
            lines.append(word[: WIDTH - 1])
    return [*filter(None, lines), "" if one.unit == "share" else clean(one.unit)[: WIDTH - 1]]


def _cell(one: NodeFigure | None) -> str:
    return "-" if one is None else probe_value(one.median, one.unit) + (MARK if one.off is not None else "")


def _notes(found: Mapping[str, dict[str, NodeFigure]]) -> Iterator[str]:
    for node, each in found.items():
        reported = [f"{one.words} {worst_words(one)}" for one in each.values() if one.off is not None]
        if reported:
            yield f"{node}: {'; '.join(reported)} against the median of the node"
