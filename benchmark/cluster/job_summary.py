"""A run as Markdown for the page of a CI job. Values are escaped by default: no node can add markup to the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmark import DISCLAIMER
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.summary import TEMPLATES, view
from benchmark.text import clean, environment

TEMPLATE = "job_summary.md.j2"
# GitHub takes 1 MiB for a page; the cluster summary has everything.
MAX_LISTED = 100
MAX_CHARACTERS = 300
# What Markdown, or the hosts that extend it (links, emoji, mathematics), would read as markup within a line.
_MARKUP = re.compile(r"[\\`*_\[\]<>#~&!@$]|:(?=\S)|(?i:(?<=www))\.")

Item = TypeVar("Item")


def escape(value: object) -> str:
    """Return a value as one line of text that means nothing to Markdown, inside a table or outside."""
    text = _MARKUP.sub(r"\\\g<0>", clean(value))
    return text.replace("|", "&#124;")  # a backslash before it is read twice inside a table


def render_job_summary(outcome: Outcome) -> str:
    """Return the page."""
    shown = view(outcome.result, outcome.run) if outcome.result and outcome.run else {"result": None}
    page = _environment().get_template(TEMPLATE).render(outcome=outcome, disclaimer=DISCLAIMER, **shown)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def _environment() -> Environment:
    text = environment(TEMPLATES)
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 # escaped as Markdown, which takes care of HTML
        finalize=escape,
    )
    jinja.filters |= {name: text.filters[name] for name in ("figure", "moment", "at")}
    jinja.filters |= {"brief": _brief, "first_few": _first_few, "rest": _rest}
    return jinja


def _brief(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."


def _first_few(items: Sequence[Item]) -> Sequence[Item]:
    return items[:MAX_LISTED]


def _rest(items: Sequence[Item]) -> int:
    return max(0, len(items) - MAX_LISTED)
