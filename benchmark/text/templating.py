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
    # Here: to load it and to compile a template takes a node a tenth of its start, and with an order it writes no text.
    from benchmark.compiled_templates import make_environment

    # Plain text has no markup to escape; `clean` guards the terminal.
    jinja = make_environment(templates, "text", autoescape=False)
    jinja.filters |= {"clean": clean, "entry": entry, "left": left, "right": right, "wrap": wrap, "figure": figure}
    jinja.filters |= {"moment": moment, "above": above, "rouge": describe_rouge, "audit": describe_audit}
    return jinja
