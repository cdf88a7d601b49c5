"""How a run ended, or one node in it, in the words that lists of runs use."""

from __future__ import annotations

from typing import Final

# In a partial run a node without a result need not have failed.
VALID: Final = "valid"
INVALID: Final = "invalid"
PARTIAL: Final = "partial"
UNFINISHED: Final = "no summary"
# Of a reason: so much stands in a line of a list.
BRIEF = 300


def brief(text: str, most: int = BRIEF) -> str:
    """Return a text on one line, cut where it is longer than `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} ..."
