"""The pages' templates, and their style sheet: what makes each of them safe stands here once.

Every value is escaped as it is put in (`autoescape`), on one line and without control characters (`finalize`): no
expression of a template can forget to. A page has no script, and its policy lets it load nothing.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmark.cluster.names import some
from benchmark.cluster.report.amounts import amount, share
from benchmark.text import clean, environment

TEMPLATES = Path(__file__).parent / "templates"


def page_environment() -> Environment:
    """Return the environment of the pages' templates, with what all pages use."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )
    text = environment(TEMPLATES)
    jinja.filters |= {"moment": text.filters["moment"], "rouge": text.filters["rouge"]}
    jinja.filters |= {"some": some, "amount": amount, "share": share}
    return jinja


def style_sheet() -> Markup:
    """Return the style sheet that all pages have."""
    return Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704 # a file of this package
