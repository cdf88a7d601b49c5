"""Values in Markdown: what a node says stays text."""

from __future__ import annotations

import re

from benchmark.text.columns import clean

# What Markdown, or the hosts that extend it (links, emoji, mathematics), would read as markup within a line. The colons
# of a time of day are none of it.
_MARKUP = re.compile(r"[\\`*_\[\]<>#~&!@$]|:(?=\S)(?!(?<=\d:)\d\d(?!\d))|(?i:(?<=www))\.")


def escape(value: object) -> str:
    """Return a value as one line of text that means nothing to Markdown, inside a table or outside."""
    text = _MARKUP.sub(r"\\\g<0>", clean(value))
    return text.replace("|", "&#124;")  # a backslash before it is read twice inside a table
