"""The list of runs as text: two lines per run, with its figures and what to look at first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from benchmark.records import GroupInShort, RunInShort, RunList
from benchmark.text.columns import clean, left, wrap
from benchmark.text.figures import right
from benchmark.words import plural

# Columns: when, verdict, profile, nodes, QPS, tokens/s.
_WHEN, _VERDICT, _PROFILE, _NODES, _FIGURE = 18, 12, 20, 8, 7
_NOTHING = GroupInShort(label="", nodes=0)


def render_list(found: RunList) -> str:
    """Return the runs in lines of at most `benchmark.text.WIDTH` columns."""
    lines = ["LLM inference benchmark: runs", wrap(found.disclaimer)]
    if found.runs:
        head = left("begun, UTC", _WHEN) + left("verdict", _VERDICT) + left("profile", _PROFILE)
        lines += ["", head + right("nodes", _NODES) + right("QPS", _FIGURE) + right("tok/s", _FIGURE)]
        for run in found.runs:
            lines += ["", *_run(run)]
    else:
        lines += ["", "There is no such run." if found.stored else "There is no run."]
    if len(found.runs) < found.matching:
        lines += ["", f"The newest {len(found.runs)} of {plural(found.matching, 'run')}; --limit 0 shows all."]
    if found.skipped:
        lines += ["", "Skipped", *(wrap(text, "  ", "    ") for text in found.skipped)]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")) + "\n"


def _run(run: RunInShort) -> Iterator[str]:
    first, *others = run.groups or (_NOTHING,)
    profile = clean(", ".join(run.profiles))
    if len(profile) >= _PROFILE:
        profile = f"{profile[: _PROFILE - 4]}..."
    head = left(_when(run.created_at), _WHEN) + left(run.verdict, _VERDICT) + left(profile, _PROFILE)
    yield head + right(f"{'-' if run.counted is None else run.counted}/{run.asked}", _NODES) + _figures(first)
    for group in others:
        yield " " * (_WHEN + _VERDICT + _PROFILE + _NODES) + _figures(group)
    yield wrap(run.run_id, "  ", "  ")
    for group in run.groups:
        if words := group.knee or ", ".join(group.probes):
            yield wrap(words, "  ", "    ")
    note = f" {run.not_hardware.upper()}." if run.not_hardware else ""
    what = "One system. " if run.system else ""
    yield wrap(f"{what}{run.first}.{note}", "  ", "    ")


def _figures(group: GroupInShort) -> str:
    # The queries/s of a sweep's best step are not a result; its knee, shown below, is.
    return right(None if group.knee else group.qps, _FIGURE) + right(group.tokens_per_s, _FIGURE)


def _when(created_at: str) -> str:
    try:
        return f"{datetime.fromisoformat(created_at).astimezone(timezone.utc):%Y-%m-%d %H:%M}"
    except ValueError:
        return created_at[: _WHEN - 2]
