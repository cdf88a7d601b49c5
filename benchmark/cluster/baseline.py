"""Named runs that later runs are compared with: `results/baselines.json`, one for each comparison key and name."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmark.canonical import canonical_sha256
from benchmark.cluster.comparison import compare
from benchmark.cluster.comparison.side import ComparisonKey, Side, by_comparison_key, load_side
from benchmark.cluster.results.load import LoadedNode
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import SCHEMA_VERSION, Comparison, Name, Record, Text

BASELINES = "baselines.json"
DEFAULT = "default"
# Hex digits of a comparison key's hash: enough to tell a few apart.
SHOWN = 8


class Baseline(Record):
    """The reference run for one comparison key."""

    run_id: Name
    label: Text = Field(description="the comparison key for people")
    set_at: Name = Field(description="UTC, ISO 8601")


class Baselines(Record):
    """`baselines.json`: name -> hash of the comparison key -> baseline."""

    schema_version: Literal[1] = SCHEMA_VERSION
    names: dict[Name, dict[Name, Baseline]] = Field(default_factory=dict)


def read_baselines(results: Path) -> Baselines:
    """Return the baselines that were set. Raises InputError for a file that cannot be read."""
    path = results / BASELINES
    return read_record(path, Baselines) if path.exists() or path.is_symlink() else Baselines()


def key_of(like: ComparisonKey) -> str:
    """Return the hash under which a comparison key is stored."""
    return canonical_sha256([like.settings, like.hardware])[:16]


def set_baseline(run_dir: Path, name: str = DEFAULT) -> list[Baseline]:
    """Make a run the baseline of its results directory for every comparison key in it; return what was set.

    Raises InputError if the run or the file of baselines cannot be used.
    """
    results, side = run_dir.parent, load_side(run_dir)
    if run_dir.name != side.name:
        raise InputError(f"{run_dir} is the run {side.name}: a baseline is found again by its run id in {results}.")
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    new = {key_of(like): Baseline(run_id=side.name, label=like.label[:4000], set_at=at) for like in side.groups}
    known = read_baselines(results).names
    _write(results, Baselines(names={**known, name: {**known.get(name, {}), **new}}))
    return list(new.values())


def clear_baseline(results: Path, name: str = DEFAULT, which: str = "") -> list[Baseline]:
    """Remove the baselines of a name, or those `which` means: a comparison key, a run id, or the beginning of either.

    Return the removed ones. Raises InputError if there is none.
    """
    known = dict(read_baselines(results).names)
    here = known.get(name, {})
    gone = {key: one for key, one in here.items() if key.startswith(which) or one.run_id.startswith(which)}
    if which and not gone:
        there = "; ".join(f"{key[:SHOWN]} ({one.run_id})" for key, one in here.items()) or "none"
        raise InputError(f"{which!r} is not a baseline under the name {name!r}; there are: {there}.")
    left = {key: one for key, one in here.items() if key not in gone}
    _write(results, Baselines(names={**known, name: left}))
    return list(gone.values())


def baseline_of(results: Path, after: Side, name: str = DEFAULT) -> Side | None:
    """Return the baselines for the comparison keys of `after` as one side; None if there are none."""
    known = read_baselines(results).names.get(name, {})
    wanted = {like: known[key_of(like)].run_id for like in after.groups if key_of(like) in known}
    sides = {run_id: load_side(results / run_id) for run_id in sorted(set(wanted.values()))}
    groups = {like: sides[run_id].groups[like] for like, run_id in wanted.items() if like in sides[run_id].groups}
    return Side(", ".join(sides), groups) if groups else None


def own_baseline(results: Path, after: Side, name: str = DEFAULT) -> tuple[str, ...]:
    """Return the labels of the comparison keys for which the run of `after` is itself the baseline."""
    known = read_baselines(results).names.get(name, {})
    run_id = after.name.partition("/")[0]
    mine = (like for like in after.groups if key_of(like) in known and known[key_of(like)].run_id == run_id)
    return tuple(like.label[:4000] for like in mine)


def against_baseline(run_dir: Path, nodes: Iterable[LoadedNode]) -> Comparison | str:
    """Return the change against the default baseline, or why it cannot be known; empty without a baseline."""
    try:
        after = Side(run_dir.name, by_comparison_key([node for node in nodes if node.measured]))
        before = baseline_of(run_dir.parent, after)
        if before is None or before.name == after.name:
            return ""
        own = own_baseline(run_dir.parent, after)
        return compare(before, after).model_copy(update={"own_baseline": own})
    except InputError as error:
        return str(error)


def _write(results: Path, baselines: Baselines) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
        write_record(results / BASELINES, baselines)
    except OSError as error:
        raise InputError(f"{results / BASELINES}: cannot be written: {error.strerror}.") from error
