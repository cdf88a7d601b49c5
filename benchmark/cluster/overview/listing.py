"""The runs of a results directory in short, newest first, all of them or those that match a filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cluster.names import natural, some
from benchmark.cluster.stored.index import stored_runs
from benchmark.cluster.stored.read import StoredRun
from benchmark.errors import InputError
from benchmark.records import RunInShort, RunList
from benchmark.rundir import REPORT_FILE

# Most existing names that a message lists.
MOST_NAMED = 20
# Most characters of the reason that a run cannot be read.
MOST_REASON = 4000


@dataclass(frozen=True)
class Wanted:
    """Which runs: an empty filter matches all; `limit`: at most this many, 0: all."""

    profile: str = ""
    node: str = ""
    verdict: str = ""
    limit: int = 0

    def has(self, run: RunInShort) -> bool:
        """Return whether the run matches."""
        return (
            (not self.profile or self.profile in run.profiles)
            and (not self.node or self.node in run.nodes)
            and (not self.verdict or self.verdict == run.verdict)
        )


def list_runs(results: Path, wanted: Wanted) -> RunList:
    """Return the runs of a results directory. Raises InputError if no run has such a profile or node."""
    skipped: list[str] = []
    runs = in_short(results, stored_runs(results, skipped))
    _require(results, "profile", wanted.profile, (name for run in runs for name in run.profiles))
    _require(results, "node", wanted.node, (name for run in runs for name in run.nodes))
    found = [run for run in runs if wanted.has(run)]
    return RunList(
        runs=tuple(found[: wanted.limit or None]),
        matching=len(found),
        stored=len(runs),
        skipped=tuple(text[:MOST_REASON] for text in skipped),
    )


def in_short(results: Path, stored: Sequence[StoredRun]) -> list[RunInShort]:
    """Return the runs, newest first, each with the path of its report if it has one."""
    runs = [_with_report(results / one.run_id / REPORT_FILE, one.short) for one in stored]
    # A copy's directory may have another name: sort by time.
    return sorted(runs, key=lambda run: (run.created_at, run.run_id), reverse=True)


def _with_report(path: Path, run: RunInShort) -> RunInShort:
    try:
        there = path.is_file()
    except OSError:  # its directory may no longer be accessible
        there = False
    return run.model_copy(update={"report": str(path.absolute())}) if there else run


def _require(results: Path, what: str, name: str, names: Iterable[str]) -> None:
    known = sorted(set(names), key=natural)
    if name and name not in known:
        there = f"{what}s: {some(known, MOST_NAMED)}" if known else "there is no run"
        raise InputError(f"{name}: no run in {results} has a {what} of this name; {there}.")
