"""The templates of text for people."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.text.columns import above, clean, entry, left, wrap
from benchmark.text.descriptions import describe_audit, describe_rouge
from benchmark.text.figures import figure, moment, right

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def environment(templates: Path) -> Environment:
    """Return the Jinja2 environment of the text templates in a directory, which compiles each once."""
    # Imported here: loading Jinja2 and compiling takes a tenth of a node's start, and some runs write no text.
    from benchmark.compiled_templates import make_environment

    # Plain text has no markup to escape; `clean` guards the terminal.
    jinja = make_environment(templates, "text", autoescape=False)
    jinja.filters |= {"clean": clean, "entry": entry, "left": left, "right": right, "wrap": wrap, "figure": figure}
    jinja.filters |= {"moment": moment, "above": above, "rouge": describe_rouge, "audit": describe_audit}
    return jinja
