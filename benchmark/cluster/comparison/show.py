"""A comparison as text for people and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmark.cluster.diagnosis.aspects import ENERGY
from benchmark.cluster.names import some
from benchmark.cluster.render.markdown import escape
from benchmark.records import Comparison, GroupChange, MetricChange, NodeChange
from benchmark.text import WIDTH, entry, figure, left, right, wrap
from benchmark.verdict import label, unit
from benchmark.words import percent, plural

_WORDS = {
    "no difference": "NO DIFFERENCE: every figure is the same.",
    "within noise": "WITHIN NOISE: nothing changed by more than chance gives.",
    "better": "BETTER: something improved and nothing became worse.",
    "worse": "WORSE:",
    "not judged": "NOT COMPARED: there was nothing to judge.",
}
OF = "Of node: the mean of the nodes; of all: every sample of all nodes together."
HEADS = ("metric", "of", "before", "after", "change", "99 % interval", "verdict")


def name_of(metric: str) -> str:
    """Return a metric's name with its unit."""
    return "tokens/J" if metric == ENERGY else label(metric) + unit(metric)


def cells(change: MetricChange) -> tuple[str, ...]:
    """Return a row of the table: see HEADS."""
    interval = "-" if change.low is None or change.high is None else f"{percent(change.low)} to {percent(change.high)}"
    return (
        name_of(change.metric),
        change.of,
        figure(change.before),
        figure(change.after),
        "-" if change.change is None else percent(change.change),
        interval,
        change.outcome if change.outcome != "not judged" else change.note or change.outcome,
    )


def verdict_words(comparison: Comparison) -> str:
    """Return the outcome, and what is worse where something is."""
    if comparison.own_baseline and len(comparison.own_baseline) == len(comparison.groups):
        return f"{comparison.after} is its own baseline: that it is equal to itself says nothing."
    words = _WORDS[comparison.outcome]
    if comparison.outcome != "worse":
        return words
    return f"{words} {'; '.join(_worse(comparison))}."


def _worse(comparison: Comparison) -> Iterator[str]:
    for group in comparison.groups:
        for change in group.changes:
            if change.outcome == "worse":
                yield f"{name_of(change.metric)} {percent(change.change or 0)}"
        slower = dict.fromkeys(one.node for one in group.each if one.outcome == "worse")
        if slower:
            yield f"{some(list(slower))} alone"


def node_words(one: NodeChange) -> str:
    """Return what changed of a single node."""
    return (
        f"{one.node}: {name_of(one.metric)} {percent(one.change)} ({percent(one.low)} to {percent(one.high)}), "
        f"{figure(one.before)} to {figure(one.after)}: {one.outcome}"
    )


def defined(group: GroupChange) -> list[MetricChange]:
    """Return the changes of metrics that either side has."""
    return [change for change in group.changes if change.before is not None or change.after is not None]


def title(group: GroupChange) -> str:
    """Return what is compared, and of how many nodes."""
    nodes = plural(len(group.nodes), "node")
    return f"{group.label}: {nodes}" + (f" ({group.note})" if group.note else "")


def render_text(comparison: Comparison) -> str:
    """Return the comparison in lines of at most WIDTH columns."""
    lines = ["LLM inference benchmark: comparison", wrap(comparison.disclaimer), ""]
    lines += [entry("Before", comparison.before), entry("After", comparison.after)]
    for group in comparison.groups:
        lines += ["", wrap(title(group)), "", _line(HEADS)]
        lines += [_line(cells(change)) for change in defined(group)]
        lines += ["", *(wrap(node_words(one), "  ", "    ") for one in group.each)] if group.each else []
    for heading, texts in (("Not compared", comparison.apart), ("Refused", comparison.refused)):
        if texts:
            lines += ["", heading, *(wrap(text, "  ", "    ") for text in texts)]
    lines += ["", *(wrap(sentence) for sentence in _own(comparison))] if comparison.own_baseline else []
    rule = (
        f"{OF} "
        f"Better or worse: the whole {comparison.confidence:.0%} interval is on that side of zero and the change is at "
        f"least {comparison.floor:.1%}."
    )
    lines += ["", wrap(rule)] if comparison.groups else []  # which are the tables
    lines += ["", wrap(verdict_words(comparison))]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")) + "\n"


def _own(comparison: Comparison) -> Iterator[str]:
    for group in comparison.own_baseline:
        yield f"{comparison.after} is its own baseline for {group}."


def _line(row: tuple[str, ...]) -> str:
    name, of, before, after, change, interval, outcome = row
    figures = right(before, 6) + right(after, 7) + right(change, 8) + right(interval, 18)
    line = left(name, 15) + left(of, 4) + figures + " "
    return line + outcome if len(line + outcome) <= WIDTH else wrap(outcome, line, " " * len(line))


def render_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown; every value is escaped."""
    lines = [f"## Comparison: {comparison.outcome}", "", escape(comparison.disclaimer), ""]
    lines += [f"From {escape(comparison.before)} to {escape(comparison.after)}.", ""]
    for group in comparison.groups:
        lines += [f"### {escape(title(group))}", "", *markdown_table(group), ""]
        lines += [*(f"- {escape(node_words(one))}" for one in group.each), ""]
    for texts, words in ((comparison.apart, "Not compared"), (comparison.refused, "Refused")):
        lines += [f"- {words}: {escape(text)}" for text in texts]
    lines += [f"- {escape(sentence)}" for sentence in _own(comparison)]
    lines += ["", escape(OF)] if comparison.groups else []
    lines += ["", f"**{escape(verdict_words(comparison))}**"]
    return "\n".join(lines).strip() + "\n"


def markdown_table(group: GroupChange, put: Callable[[object], str] = escape) -> list[str]:
    """Return the lines of a group's table."""
    rows = [HEADS, *(cells(change) for change in defined(group))]
    lines = [f"| {' | '.join(put(cell) for cell in row)} |" for row in rows]
    return [lines[0], "| --- | --- | ---: | ---: | ---: | ---: | --- |", *lines[1:]]
