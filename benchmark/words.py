"""English for counts: one helper, so that nothing says "1 nodes"."""

from __future__ import annotations


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: "1 node", "2 nodes", "1,200 queries" (of "query" and "queries")."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
