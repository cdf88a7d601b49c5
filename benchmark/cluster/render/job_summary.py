"""A run as Markdown for the page of a CI job. All values are escaped, so that no node can add markup to the page."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TypeVar

from jinja2 import Environment

from benchmark import DISCLAIMER
from benchmark.cluster.comparison.show import HEADS, cells, defined, legend, title, verdict_words
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.markdown import escape
from benchmark.cluster.render.summary import TEMPLATES, view
from benchmark.compiled_templates import make_environment
from benchmark.records import Comparison
from benchmark.text.templating import environment
from benchmark.words import brief

TEMPLATE = "job_summary.md.j2"
# GitHub accepts pages of up to 1 MiB; the cluster summary has everything.
MAX_LISTED = 100
MAX_CHARACTERS = 300
Item = TypeVar("Item")


def render_job_summary(outcome: Outcome) -> str:
    """Return the page."""
    shown = view(outcome.result, outcome.run) if outcome.result and outcome.run else {"result": None}
    page = (
        _environment()
        .get_template(TEMPLATE)
        .render(outcome=outcome, disclaimer=DISCLAIMER, baseline=baseline_view(outcome.against_baseline), **shown)
    )
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def baseline_view(reported: Comparison | str) -> dict[str, object]:
    """Return the change against the baseline for the templates: words, and a table for each group."""
    if not isinstance(reported, Comparison):
        return {"words": reported, "tables": []}
    tables = [{"title": title(group), "rows": [cells(one) for one in defined(group)]} for group in reported.groups]
    words = f"{verdict_words(reported)} (from {reported.before}) {legend(reported)}"
    return {"words": words, "heads": HEADS, "tables": tables}


@functools.cache
def _environment() -> Environment:
    """Return the template's environment; the template is compiled once."""
    text = environment(TEMPLATES)
    # Escaping for Markdown covers HTML too.
    jinja = make_environment(TEMPLATES, "markdown", autoescape=False, finalize=escape)
    jinja.filters |= {name: text.filters[name] for name in ("figure", "moment")}
    jinja.filters |= {"brief": _brief, "first_few": _first_few, "rest": _rest}
    return jinja


def _brief(text: str) -> str:
    return brief(text, MAX_CHARACTERS)


def _first_few(items: Sequence[Item]) -> Sequence[Item]:
    return items[:MAX_LISTED]


def _rest(items: Sequence[Item]) -> int:
    return max(0, len(items) - MAX_LISTED)
