"""A comparison as text for people and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmark.cluster.diagnosis.aspects import ENERGY
from benchmark.cluster.names import some
from benchmark.cluster.render.markdown import escape
from benchmark.probed import PREFIX, Place
from benchmark.records import Comparison, CurveChange, GroupChange, MetricChange, NodeChange
from benchmark.text.columns import WIDTH, above, entry, left, wrap
from benchmark.text.figures import figure, probe_unit, probe_value, right
from benchmark.verdict import label, unit
from benchmark.words import percent, plural

_WORDS = {
    "no difference": "NO DIFFERENCE: every figure is the same.",
    "within noise": "WITHIN NOISE: nothing changed by more than chance explains.",
    "better": "BETTER: something improved and nothing became worse.",
    "worse": "WORSE:",
    "not judged": "NOT COMPARED: there was nothing to judge.",
}
_OF = "Of node: the mean of the nodes; of all: every sample of all nodes together."
_OF_SYSTEM = "Of all: the result of one schedule over all nodes."
PROBES = "A run has one value of each probe: its interval is the assumed spread between runs of the same hardware."
HEADS = ("metric", "of", "before", "after", "change", "99 % interval", "verdict")


def name_of(change: MetricChange | NodeChange) -> str:
    """Return a metric's name with its unit."""
    metric = change.metric
    return "tokens/J" if metric == ENERGY else label(metric) + (probe_unit(change.unit) or unit(metric))


def _value(value: float | None, change: MetricChange | NodeChange) -> str:
    return probe_value(value, change.unit) if change.metric.startswith(PREFIX) else figure(value)


def whose(one: NodeChange) -> str:
    """Return the node, and which of its GPUs or pairs."""
    place = Place(one.metric, one.after, one.gpu, one.peer).words
    return f"{one.node} {place}" if place else one.node


def cells(change: MetricChange) -> tuple[str, ...]:
    """Return a row of the table (see HEADS)."""
    interval = "-" if change.low is None or change.high is None else f"{percent(change.low)} to {percent(change.high)}"
    return (
        name_of(change),
        change.of,
        _value(change.before, change),
        _value(change.after, change),
        "-" if change.change is None else percent(change.change),
        interval,
        change.outcome if change.outcome != "not judged" else change.note or change.outcome,
    )


def verdict_words(comparison: Comparison) -> str:
    """Return the outcome, and what is worse, if anything."""
    if comparison.own_baseline and len(comparison.own_baseline) == len(comparison.groups):
        return f"{comparison.after} is its own baseline, so that equality says nothing."
    if comparison.same:
        return f"{comparison.after} was compared with itself, so that equality says nothing."
    words = _WORDS[comparison.outcome]
    if comparison.outcome != "worse":
        return words
    return f"{words} {'; '.join(_worse(comparison))}."


def _worse(comparison: Comparison) -> Iterator[str]:
    for group in comparison.groups:
        for change in group.changes:
            if change.outcome == "worse":
                yield f"{name_of(change)} {percent(change.change or 0)}"
        for one in group.curve:
            if one.outcome == "worse":
                yield f"tokens/s of a {one.per} {percent(one.change)} at {one.tokens_per_s_per_user:g} per user"
        slower = dict.fromkeys(whose(one) for one in group.each if one.outcome == "worse")
        if slower:
            yield f"{some(list(slower))} alone"


def node_words(one: NodeChange) -> str:
    """Return a single node's change in words."""
    return (
        f"{whose(one)}: {name_of(one)} {percent(one.change)} ({percent(one.low)} to {percent(one.high)}), "
        f"{_value(one.before, one)} to {_value(one.after, one)}: {one.outcome}"
    )


def curve_words(one: CurveChange) -> str:
    """Return the change at one point of the curves in words."""
    more = f"{abs(one.change):.1%} {'more' if one.change > 0 else 'less'}" if one.change else "as many"
    between = f" ({percent(one.low)} to {percent(one.high)})" if one.low is not None and one.high is not None else ""
    outcome = one.note if one.outcome == "not judged" else one.outcome
    return (
        f"{more} tokens/s of a {one.per} at {one.tokens_per_s_per_user:g} tokens/s per user{between}, "
        f"{figure(one.before)} to {figure(one.after)}: {outcome}"
    )


def defined(group: GroupChange) -> list[MetricChange]:
    """Return the changes of metrics that at least one side has."""
    return [change for change in group.changes if change.before is not None or change.after is not None]


def title(group: GroupChange) -> str:
    """Return what is compared, and the number of nodes."""
    nodes = "one system" if group.system else plural(len(group.nodes), "node")
    return f"{group.label}: {nodes}" + (f" ({group.note})" if group.note else "")


def legend(comparison: Comparison) -> str:
    """Return the legend of the tables."""
    of = _OF_SYSTEM if any(group.system for group in comparison.groups) else _OF
    return f"{of} {PROBES}" if _probed(comparison) else of


def render_text(comparison: Comparison) -> str:
    """Return the comparison in lines of at most WIDTH columns."""
    lines = ["LLM inference benchmark: comparison", wrap(comparison.disclaimer), ""]
    lines += [entry("Before", comparison.before), entry("After", comparison.after)]
    for group in comparison.groups:
        lines += ["", wrap(title(group)), "", _line(HEADS)]
        lines += [_line(cells(change)) for change in defined(group)]
        lines += ["", *(wrap(curve_words(one), "  ", "    ") for one in group.curve)] if group.curve else []
        lines += ["", *(wrap(node_words(one), "  ", "    ") for one in group.each)] if group.each else []
    for heading, texts in (("Not compared", comparison.apart), ("Refused", comparison.refused)):
        if texts:
            lines += ["", heading, *(wrap(text, "  ", "    ") for text in texts)]
    lines += ["", *(wrap(sentence) for sentence in _own(comparison))] if comparison.own_baseline else []
    rule = (
        f"{legend(comparison)} "
        f"Better or worse: the whole {comparison.confidence:.0%} interval is on that side of zero and the change is at "
        f"least {comparison.floor:.1%}."
    )
    lines += ["", wrap(rule)] if comparison.groups or _probed(comparison) else []  # if there are tables
    lines += ["", wrap(verdict_words(comparison))]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")) + "\n"


def _probed(comparison: Comparison) -> bool:
    return any(change.metric.startswith(PREFIX) for group in comparison.groups for change in group.changes)


def _own(comparison: Comparison) -> Iterator[str]:
    for group in comparison.own_baseline:
        yield f"{comparison.after} is its own baseline for {group}."


def _line(row: tuple[str, ...]) -> str:
    name, of, before, after, change, interval, outcome = row
    figures = right(before, 6) + right(after, 7) + right(change, 8) + right(interval, 18)
    own_line, newline, cell = above(name, 14).rpartition("\n")
    line = f"{cell} " + left(of, 4) + figures + " "
    return (
        own_line + newline + (line + outcome if len(line + outcome) <= WIDTH else wrap(outcome, line, " " * len(line)))
    )


def render_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown; every value is escaped."""
    lines = [f"## Comparison: {comparison.outcome}", "", escape(comparison.disclaimer), ""]
    lines += [f"From {escape(comparison.before)} to {escape(comparison.after)}.", ""]
    for group in comparison.groups:
        lines += [f"### {escape(title(group))}", "", *markdown_table(group), ""]
        lines += [f"- {escape(curve_words(one))}" for one in group.curve]
        lines += [*(f"- {escape(node_words(one))}" for one in group.each), ""]
    for texts, words in ((comparison.apart, "Not compared"), (comparison.refused, "Refused")):
        lines += [f"- {words}: {escape(text)}" for text in texts]
    lines += [f"- {escape(sentence)}" for sentence in _own(comparison)]
    lines += ["", escape(legend(comparison))] if comparison.groups or _probed(comparison) else []
    lines += ["", f"**{escape(verdict_words(comparison))}**"]
    return "\n".join(lines).strip() + "\n"


def markdown_table(group: GroupChange, put: Callable[[object], str] = escape) -> list[str]:
    """Return the lines of a group's table."""
    rows = [HEADS, *(cells(change) for change in defined(group))]
    lines = [f"| {' | '.join(put(cell) for cell in row)} |" for row in rows]
    return [lines[0], "| --- | --- | ---: | ---: | ---: | ---: | --- |", *lines[1:]]
