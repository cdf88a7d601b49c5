"""Figures as people read them, in few characters."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from benchmark.text.columns import clean
from benchmark.words import percent

if TYPE_CHECKING:
    from benchmark.probed import NodeFigure

# Suffix and factor.
_SCALES = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9))


def figure(value: float | None) -> str:
    """Return a number in at most five characters with the digits that a reader can use; '-' where it is undefined.

    Valid from 1e-99 to 1e+99, and for zero.
    """
    if value is None:
        return "-"
    value += 0.0  # drops the sign of -0.0
    size = abs(value)
    if 0 < size < 0.01:
        return f"{value:.0e}"
    for suffix, scale in _SCALES:
        scaled = value / scale
        digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
        # 99,999.6 rounds to 100.0k, which is too long.
        for text in (f"{scaled:.{digits}f}{suffix}", f"{scaled:.0f}{suffix}"):
            if len(text) <= 5:
                return text
    return f"{value:.0e}"


def right(value: float | str | None, width: int) -> str:
    """Return a number or a word, right-aligned in `width` columns."""
    return (value if isinstance(value, str) else figure(value)).rjust(width)


def probe_value(value: float | None, unit: str) -> str:
    """Return a probe's value in at most five characters: a count (no unit) as a whole number, a share in percent."""
    if value is None or unit not in ("", "share"):
        return figure(value)
    whole = f"{value:.0f}" if unit == "" else f"{value:.0%}"
    return whole if len(whole) <= 5 else figure(value)


def probe_unit(unit: str) -> str:
    """Return the unit that follows `probe_value`, with a leading space, or nothing."""
    return f" {clean(unit)}" if unit not in ("", "share") else ""


def worst_words(one: NodeFigure) -> str:
    """Return a figure's worst place, and how far it is from the median where that is far."""
    off = "" if one.off is None else f", {percent(one.off)}"
    return f"{probe_value(one.worst.value, one.unit)}{probe_unit(one.unit)} on {one.worst.words}{off}"


def byte_size(size: float) -> str:
    """Return a size in GB or MB, in powers of 1000: 16.1 GB, 2.0 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def moment(text: str) -> str:
    """Return an ISO 8601 time in a form for people."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return text


def energy_words(joules: float, tokens_per_joule: float | None, joules_per_query: float | None) -> str:
    """Return the energy used, in all, per token and per query."""
    size, unit = (joules, "J") if joules < 1e4 else (joules / 1e3, "kJ") if joules < 1e7 else (joules / 1e6, "MJ")
    return f"{figure(size)} {unit}, {figure(tokens_per_joule)} tokens/J, {figure(joules_per_query)} J/query"
