"""Escape values for Markdown: text from nodes stays text."""

from __future__ import annotations

import re

from benchmark.text.columns import clean

# Markup within a line, of Markdown or its extensions (links, emoji, mathematics). The colons of a time are not markup.
_MARKUP = re.compile(r"[\\`*_\[\]<>#~&!@$]|:(?=\S)(?!(?<=\d:)\d\d(?!\d))|(?i:(?<=www))\.")


def escape(value: object) -> str:
    """Return a value as one line of plain text in Markdown, inside a table or outside."""
    text = _MARKUP.sub(r"\\\g<0>", clean(value))
    return text.replace("|", "&#124;")  # inside a table, a backslash before it would be unescaped twice
