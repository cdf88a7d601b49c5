"""Nodes' names in order and in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that puts jw2 before jw10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part], name


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def members_words(members: Sequence[str]) -> str:
    """Return the nodes of a group, its head first; empty without nodes."""
    return some([f"{members[0]} (head)", *members[1:]]) if members else ""
