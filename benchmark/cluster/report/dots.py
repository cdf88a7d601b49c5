"""Dot charts: one row per node, its values as dots on one axis; many nodes are columns without names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from benchmark.cluster.report.amounts import tick
from benchmark.cluster.report.drawing import COLOURS, SERIES, Canvas, Margins, brief, draw_line, series
from benchmark.cluster.report.parts import NodeGroup
from benchmark.text.columns import columns

# With more nodes there is no room for each name.
MOST_NAMED = 40
# Most outliers that are named.
MOST_OUT = 6
WIDE, NARROW = 860, 340


@dataclass(frozen=True)
class Dot:
    """One value of a node; `name`: of the drawn element. A dot that is not filled is a value to compare with."""

    name: tuple[object, ...]
    value: float
    filled: bool = True


@dataclass(frozen=True)
class Strip:
    """A node's dots, joined if there are several, and a word at the row's end; `alarm`: in the limits' colour."""

    node: str
    dots: Sequence[Dot]
    word: str = ""
    alarm: bool = False


@dataclass(frozen=True)
class Axis:
    """The values' name; `line`: where a line crosses all rows; `middle`: roughly the centre of the values."""

    label: str
    middle: float
    line: bool = False

    def furthest(self, dots: Sequence[Dot]) -> float:
        """Return the most extreme value, beside which there is room for a name."""
        return max((dot.value for dot in dots), key=lambda value: abs(value - self.middle))

    def span(self, values: Sequence[float]) -> tuple[float, float]:
        """Return the axis's ends, wide enough that a difference of two percent does not look large."""
        low, high = min(*values, 0.9 * self.middle), max(*values, 1.1 * self.middle)
        room = 0.04 * (high - low) or 1.0
        return low - room, high + room


def at_right(strips: Sequence[Strip], what: str) -> str:
    """Return the part of a chart's note about the words at the rows' ends; empty where rows are too many for words."""
    return f"; on the right: {what}" if len(strips) <= MOST_NAMED else ""


def dot_charts(
    name: str, like: NodeGroup, strips: Sequence[Strip], axis: Axis, words: str, narrow: bool = True
) -> tuple[Markup, Markup | None]:
    """Return the chart for a wide and, if wanted, for a narrow screen; `words`: its description for screen readers."""
    draw = _named if len(strips) <= MOST_NAMED else _many
    return (
        draw(f"{name}-{like.number}-wide", WIDE, like, strips, axis, words),
        draw(f"{name}-{like.number}-narrow", NARROW, like, strips, axis, words) if narrow else None,
    )


def _named(name: str, width: int, like: NodeGroup, strips: Sequence[Strip], axis: Axis, words: str) -> Markup:
    left = 24 + 7 * max(columns(brief(strip.node)) for strip in strips)
    margins = Margins(left=min(left, 150), right=64, top=8, bottom=38)
    with Canvas(name, width, 46 + 20 * len(strips), margins=margins) as canvas:
        (axes,) = canvas.axes
        if axis.line:
            axes.axvline(axis.middle, color=COLOURS["soft"], linewidth=1, gid=series("median"))
        for place, strip in enumerate(strips):
            colour = _colour(like, strip.node)
            values = [dot.value for dot in strip.dots]
            if len(values) > 1:
                draw_line(axes, [min(values), max(values)], [place, place], color=colour, linewidth=1.2)
            for dot in strip.dots:
                draw_line(axes, [dot.value], [place], gid=series(*dot.name), **_look(dot, colour, 7))
            end = COLOURS["limit" if strip.alarm else "soft"]
            axes.text(1.01, place, strip.word, transform=axes.get_yaxis_transform(), va="center", color=end)
        axes.set_yticks(range(len(strips)), [brief(strip.node) for strip in strips])
        axes.set_ylim(len(strips) - 0.5, -0.5)
        axes.set_xlim(*axis.span([dot.value for strip in strips for dot in strip.dots]))
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        axes.set_xlabel(axis.label)
        return canvas.svg(words)


def _many(name: str, width: int, like: NodeGroup, strips: Sequence[Strip], axis: Axis, words: str) -> Markup:
    with Canvas(name, width, 260, margins=Margins(left=50, right=16)) as canvas:
        (axes,) = canvas.axes
        if axis.line:
            axes.axhline(axis.middle, color=COLOURS["soft"], linewidth=1, gid=series("median"))
        for place, strip in enumerate(strips, start=1):
            colour = _colour(like, strip.node)
            values = [dot.value for dot in strip.dots]
            if len(values) > 1:
                draw_line(axes, [place, place], [min(values), max(values)], color=colour, linewidth=0.8)
            for dot in strip.dots:
                draw_line(axes, [place], [dot.value], gid=series(*dot.name), **_look(dot, colour, 4))
        axes.set_ylim(*axis.span([dot.value for strip in strips for dot in strip.dots]))
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        axes.set_xlim(0, len(strips) + 1)
        alarmed = [strip.node for strip in strips if strip.alarm]
        places = {strip.node: (place, axis.furthest(strip.dots)) for place, strip in enumerate(strips, start=1)}
        out = [node for node in dict.fromkeys([*alarmed, *like.marked]) if node in places]
        for number, node in enumerate(out[:MOST_OUT]):
            to_left = places[node][0] > len(strips) / 2
            axes.annotate(
                brief(node),
                places[node],
                xytext=(-8 if to_left else 8, -1 - 3 * (number % 2)),
                textcoords="offset points",
                ha="right" if to_left else "left",
                va="center",
            )
        axes.set_ylabel(axis.label)
        axes.set_xlabel("rank")
        return canvas.svg(words)


def _look(dot: Dot, colour: str, size: int) -> dict[str, Any]:
    inside = colour if dot.filled else COLOURS["paper"]
    return {
        "marker": "o",
        "linestyle": "none",
        "color": colour,
        "markersize": size,
        "markerfacecolor": inside,
        "markeredgewidth": 1.4,
    }


def _colour(like: NodeGroup, node: str) -> str:
    mark = like.marked.get(node)
    return COLOURS["soft"] if mark is None else SERIES[mark.colour]
