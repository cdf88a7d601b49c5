"""`index.html`: all runs, newest first, and every node over time; filters without a script.

A filter is a list of numbered options; rows say which options they belong to, and a rule of the style sheet hides the
others (`:has()`). A browser without `:has()` shows no filters and all rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from benchmark import DISCLAIMER, __version__
from benchmark.cluster.names import natural
from benchmark.cluster.overview.listing import in_short
from benchmark.cluster.overview.sparklines import MOST_POINTS, node_lines
from benchmark.cluster.report.templating import page_environment, style_sheet
from benchmark.cluster.stored.read import StoredRun
from benchmark.cluster.stored.states import IN_PROGRESS, INVALID, PARTIAL, UNFINISHED, VALID
from benchmark.records import GroupInShort, RunInShort
from benchmark.rundir import REPORT_FILE
from benchmark.words import brief

TEMPLATE = "index.html.j2"
# Limits of the page's size: runs, lines of nodes, and unreadable runs.
MOST_RUNS = 1000
MOST_LINES = 1000
MOST_SKIPPED = 20
# Most models and groups of a run.
MOST_GROUPS = 4
# Most characters of a model's name, of the reason that a run cannot be read, and of what to look at.
MOST_NAME, MOST_WORDS = 120, 200
VERDICTS = (VALID, INVALID, PARTIAL, IN_PROGRESS, UNFINISHED)
_LOOK = {VALID: "fine", INVALID: "bad"}


@dataclass
class _Options:
    """The options of a filter, numbered from 0."""

    names: list[str]
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.number = {name: place for place, name in enumerate(self.names)}

    def of(self, names: Iterable[str]) -> str:
        return " ".join(str(self.number[name]) for name in names)


@dataclass(frozen=True)
class _Row:
    """A run in the page; `crew`: the number of its set of nodes."""

    run: RunInShort
    href: str
    at: str
    models: Sequence[str]
    groups: Sequence[GroupInShort]
    more_groups: int
    look: str
    verdict: int
    profiles: str
    crew: int
    why: str


def render_index(results: Path, stored: Sequence[StoredRun], skipped: Sequence[str]) -> str:
    """Return the page of a results directory; `skipped`: runs that could not be read, and why."""
    every = in_short(results, stored)
    runs = every[:MOST_RUNS]
    shown = {run.run_id for run in runs}
    lines = node_lines(results, [one for one in stored if one.run_id in shown])
    there = {run.run_id: _href(run) for run in runs}
    profiles = _Options(sorted({name for run in runs for name in run.profiles}))
    nodes = _Options(sorted({name for run in runs for name in run.nodes}, key=natural))
    crews: dict[frozenset[str], int] = {}
    rows = [_row(run, there[run.run_id], profiles, crews) for run in runs]
    alone = {name: crews.setdefault(frozenset({name}), len(crews)) for name in nodes.names}
    return (
        page_environment()
        .get_template(TEMPLATE)
        .render(
            version=__version__,
            disclaimer=DISCLAIMER,
            css=style_sheet() + _rules(profiles, nodes, crews),
            rows=rows,
            older=len(every) - len(runs),
            lines=[(line, profiles.number[line.profile], alone[line.node]) for line in lines[:MOST_LINES]],
            more_lines=max(0, len(lines) - MOST_LINES),
            there=there,
            points=MOST_POINTS,
            profiles=profiles.names,
            nodes=nodes.names,
            verdicts=VERDICTS,
            skipped=[brief(text, MOST_WORDS) for text in skipped[:MOST_SKIPPED]],
            more_skipped=max(0, len(skipped) - MOST_SKIPPED),
            made=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        )
    )


def _row(run: RunInShort, href: str, profiles: _Options, crews: dict[frozenset[str], int]) -> _Row:
    return _Row(
        run=run,
        href=href,
        at=_at(run.created_at),
        models=[brief(model, MOST_NAME) for model in run.models[:MOST_GROUPS]],
        groups=run.groups[:MOST_GROUPS],
        more_groups=max(0, len(run.groups) - MOST_GROUPS, len(run.models) - MOST_GROUPS),
        look=_LOOK.get(run.verdict, "unsure"),
        verdict=VERDICTS.index(run.verdict),
        profiles=profiles.of(run.profiles),
        crew=crews.setdefault(frozenset(run.nodes), len(crews)),
        why=brief(run.why, MOST_WORDS),
    )


def _href(run: RunInShort) -> str:
    """Return the link from the page to a run's report; empty if there is none."""
    return f"{quote(os.fsencode(run.run_id))}/{REPORT_FILE}" if run.report else ""


def _at(created_at: str) -> str:
    try:
        return f"{datetime.fromisoformat(created_at).astimezone(timezone.utc):%Y-%m-%d %H:%M}"
    except ValueError:
        return created_at


def _rules(profiles: _Options, nodes: _Options, crews: dict[frozenset[str], int]) -> Markup:
    """Return a rule for every option that hides other rows; rules contain numbers, never names."""
    rules = []
    for name, count in (("verdict", len(VERDICTS)), ("profile", len(profiles.names))):
        rules += [_rule(name, at, f'[data-{name}]:not([data-{name}~="{at}"])') for at in range(count)]
    for name, at in nodes.number.items():
        having = ",".join(f".c{crew}" for members, crew in crews.items() if name in members)
        rules.append(_rule("node", at, f".of:not({having})"))
    return Markup("\n".join(["", *rules]))  # noqa: S704 # nothing but numbers was put in


def _rule(filtered_by: str, option: int, hidden: str) -> str:
    return f'main:has(#{filtered_by} [value="{option}"]:checked) {hidden} {{ display: none; }}'
