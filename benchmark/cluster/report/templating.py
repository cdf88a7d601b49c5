"""The pages' templates and style sheet, and what makes the pages safe.

Every value is escaped (`autoescape`), put on one line and stripped of control characters (`finalize`), without any help
from the template. A page has no script, and its content policy lets it load nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from benchmark.cluster.names import some
from benchmark.cluster.report.amounts import amount, share
from benchmark.cluster.report.headline import finding_words
from benchmark.cluster.report.sections import failed_checks
from benchmark.compiled_templates import make_environment
from benchmark.text.columns import clean
from benchmark.text.templating import environment

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def page_environment() -> Environment:
    """Return the environment of the pages' templates; each is compiled once."""
    jinja = make_environment(
        TEMPLATES,
        "page",
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )
    text = environment(TEMPLATES)
    jinja.filters |= {"moment": text.filters["moment"], "rouge": text.filters["rouge"]}
    jinja.filters |= {"some": some, "amount": amount, "share": share, "finding": finding_words, "missed": failed_checks}
    return jinja


def style_sheet() -> Markup:
    """Return the style sheet of all pages."""
    return Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704 # a file of this package
