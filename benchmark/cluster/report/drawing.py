"""Matplotlib figures as SVG in the page: the page's fonts, its light and dark colours, no script.

A figure is drawn in pixels, in placeholder colours; each becomes a CSS variable. Text stays text. The outer element
gives each axis's position and range (`data-axes`), so that a drawn point can be turned back into its value.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.text.columns import clean, columns

# Placeholders for the page's colours: report.css has the light and the dark ones.
COLOURS = {
    "ink": "#0000f0",
    "soft": "#0000f1",
    "line": "#0000f2",
    "crowd": "#0000f3",
    "limit": "#0000f4",
    "paper": "#0000f5",
    "n0": "#0000e0",
    "n1": "#0000e1",
    "n2": "#0000e2",
    "n3": "#0000e3",
    "n4": "#0000e4",
    "n5": "#0000e5",
}
# The background of a text that curves may cross.
BEHIND: dict[str, Any] = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1.5}
SERIES = tuple(COLOURS[name] for name in COLOURS if name.startswith("n"))
# Dash patterns beside the colours, for colour-blind readers: by a node's place among those with a colour.
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 3)), (0, (9, 3)))
_NAMES = {value: name for name, value in COLOURS.items()}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 11,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: text has the same size on every machine
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 1,
    "text.color": COLOURS["ink"],
    "lines.solid_capstyle": "round",
}
# Room for a label beside the axes, in pixels.
ROOM = 26.0
# Longer names are cut in charts; the tables have them in full.
MAX_LABEL = 18


@dataclass(frozen=True)
class Margins:
    """Room around the axes, in pixels."""

    left: int = 44
    right: int = 14
    top: int = 14
    bottom: int = 38
    between: float = 0.0
    """Between axes, as a share of their height."""


def brief(name: str) -> str:
    """Return a name, shortened to the room that a chart has."""
    text = clean(name)
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "\N{HORIZONTAL ELLIPSIS}"


class Canvas:
    """One figure of `width` x `height` pixels with axes above each other that share the horizontal one.

    Used as a context manager: drawing inside it uses the page's style. An element with the `gid` of `series(...)` has
    that name in the page.
    """

    def __init__(self, name: str, width: int, height: int, rows: int = 1, margins: Margins | None = None) -> None:
        self.name, self.width, self.height = name, width, height
        self._rows, self._margins = rows, margins or Margins()
        self._style = rc_context({**_STYLE, "svg.hashsalt": name})

    def __enter__(self) -> Canvas:
        self._style.__enter__()
        edge, width, height = self._margins, self.width, self.height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        place = {
            "left": edge.left / width,
            "right": 1 - edge.right / width,
            "top": 1 - edge.top / height,
            "bottom": edge.bottom / height,
            "hspace": edge.between,
        }
        made = self.figure.subplots(self._rows, 1, sharex=True, squeeze=False, gridspec_kw=place)
        self.axes: list[Axes] = list(made[:, 0])
        for each in self.axes:
            each.patch.set_visible(False)
            each.set_axisbelow(True)
            each.grid(axis="y")
        self.figure.patch.set_visible(False)
        return self

    def __exit__(self, *failure: object) -> None:
        self._style.__exit__(None, None, None)

    def svg(self, label: str) -> Markup:
        """Return the figure as an element of the page; `label`: its description for screen readers."""
        for axis in (axis for each in self.axes for axis in (each.xaxis, each.yaxis)):
            if not axis.label.get_text():
                axis.set_label_coords(0, 0)  # else matplotlib measures every tick's text for nothing
        target = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that the measuring font lacks: the reader's own font has it
            FigureCanvasSVG(self.figure).print_svg(target, metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
        drawn = target.getvalue()
        body = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
        for pattern, instead in _REWRITE:
            body = pattern.sub(instead, body)
        axes = json.dumps([self._span(each) for each in self.axes])
        return Markup(  # noqa: S704 # matplotlib escapes texts and names
            f'<svg class="chart" data-chart="{escape(self.name)}" role="img" aria-label="{escape(clean(label))}" '
            f'viewBox="0 0 {self.width} {self.height}" data-axes="{escape(axes)}">{body.strip()}'
        )

    def _span(self, axes: Axes) -> dict[str, Any]:
        box = axes.get_position()
        return {
            "left": round(box.x0 * self.width, 3),
            "right": round(box.x1 * self.width, 3),
            "top": round((1 - box.y1) * self.height, 3),
            "bottom": round((1 - box.y0) * self.height, 3),
            "x": list(axes.get_xlim()),
            "y": list(axes.get_ylim()),
            "scale": axes.get_xscale(),
        }


class Labels:
    """Texts beside points of axes with set limits; one that would cover another, or leave the axes, is left out.

    None covers one of `points`.
    """

    def __init__(self, axes: Axes, points: Sequence[Sequence[float]]) -> None:
        self._axes = axes
        pixels = [axes.transData.transform(tuple(at)) for at in points]
        self._taken: list[tuple[float, ...]] = [(x - 2, y - 2, x + 2, y + 2) for x, y in pixels]

    def put(self, text: str, at: Sequence[float], colour: str = COLOURS["ink"]) -> None:
        """Write `text` beside the point `at` where there is room, trying below and to the left first."""
        x, y = self._axes.transData.transform(tuple(at))
        width, height = 7.0 * columns(text), 13.0
        frame = self._axes.get_window_extent()
        for right, above in ((False, False), (True, True), (False, True), (True, False)):
            dx, dy = 5 if right else -5, 4 if above else -12
            left, bottom = x + dx - (0 if right else width), y + dy - 2
            box = (left, bottom, left + width, bottom + height)
            inside = box[0] >= frame.x0 - ROOM and box[2] <= frame.x1 + ROOM and box[1] >= frame.y0
            if inside and not any(_overlap(box, other) for other in self._taken):
                self._taken.append(box)
                align = "left" if right else "right"
                self._axes.annotate(text, (at[0], at[1]), (dx, dy), textcoords="offset points", ha=align, color=colour)
                return


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], **look: Any) -> None:
    """Draw a line as `axes.plot` does, but leave the limits of the axes to the caller.

    There may be hundreds of lines; updating the limits for each takes as long as drawing it.
    """
    axes.add_artist(Line2D(x, y, **look))


def series(*names: object) -> str:
    """Return the `gid` that gives a drawn element its name (`data-series`), the parts separated by colons."""
    return _SERIES + ":".join(clean(name) for name in names)


def _rounded(found: re.Match[str]) -> str:
    # A hundredth of a pixel is finer than any screen.
    return _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), found[0])


_SERIES = "series."
_NO_METADATA: dict[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_NUMBER = re.compile(r"-?[0-9]+\.[0-9]+")
_REWRITE: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"#0000[ef][0-9a-f]"), lambda found: f"var(--{_NAMES[found[0]]})"),
    # The page's own font, at the intended size.
    (re.compile(r"font: ([0-9.]+)px [^;\"]*"), r"font-size: \1px"),
    (re.compile(r"font-family: [^;\"]*;? ?"), ""),
    (re.compile(r' transform="rotate\(-0 [^"]*"'), ""),
    # Own names; matplotlib's ids are the same in every chart of the page.
    (re.compile(rf' id="{re.escape(_SERIES)}([^"]*)"'), r' data-series="\1"'),
    (re.compile(r' id="(figure|axes|matplotlib\.axis|[xy]tick|line2d|text|patch|[A-Za-z]*Collection)_[0-9]+"'), ""),
    (re.compile(r"<defs>\s*</defs>"), ""),
    (re.compile(r"\s*\n\s*"), "\n"),
    (re.compile(r"\n(?=[LMCQzZ])"), ""),
    (re.compile(r' d="[^"]*"'), _rounded),
)
