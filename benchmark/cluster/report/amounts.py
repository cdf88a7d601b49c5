"""Numbers as the report shows them: with the digits that a reader can use, up to those of a large cluster."""

from __future__ import annotations

from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"


def amount(value: float | None) -> str:
    """Return a number with at least three significant digits and separators between thousands; '-' where undefined."""
    if value is None:
        return "-"
    value += 0.0  # drops the sign of -0.0
    size = abs(value)
    if 0 < size < 0.01 or size >= 1e15:
        text = f"{value:.2g}"
    else:
        text = f"{value:,.{2 if size < 10 else 1 if size < 100 else 0}f}"
    return text.replace("-", MINUS) if value < 0 else text


def tick(value: float) -> str:
    """Return a round number as an axis shows it: exact, without trailing zeros."""
    text = f"{value + 0.0:,.10g}"
    return text.replace("-", MINUS) if value < 0 else text


def share(value: float | None) -> str:
    """Return a change or difference in percent, with its sign."""
    if value is None:
        return "-"
    text = f"{value:+.1%}" if abs(value) < 0.0995 else f"{value:+,.0%}"
    return "0.0%" if text in ("+0.0%", "-0.0%") else text.replace("-", MINUS)


def median(values: Iterable[float]) -> float | None:
    """Return the middle value, or the mean of the two in the middle; None if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
