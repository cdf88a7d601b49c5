"""Choose stored runs that are old enough to be removed, explain why other old ones stay, and remove them.

Only what is certainly a run of this program is touched: a directory of this user, not a link, named as in its run.json.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import msgspec

from benchmark.cluster.baseline import read_baselines
from benchmark.cluster.leader import leader_of
from benchmark.cluster.stored.find import find_run
from benchmark.errors import InputError
from benchmark.files import MAX_RESULT_BYTES, read_text
from benchmark.locks import take
from benchmark.records import RunRecord
from benchmark.rundir import NODES, RESULT_FILE, read_run

# File beside the runs with run ids that are never removed, one per line.
PINNED = "pinned.txt"
# A removal first renames the run to this: it is no longer taken for a run, and the next prune finishes the job.
ASIDE = ".pruned-"
RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[\w.-]+")
# A run without a summary may still be measuring, or be resumed: benchmark_timeout_s is at most seven days.
UNFINISHED_S = 8 * 86400

# What must be equal for two figures to be of one kind: settings and hardware, GPUs, rate.
_Kind = tuple[tuple[tuple[str, str], ...], int, str]


@dataclass(frozen=True)
class Stored:
    """A run's directory; `age_s` counts from its newest attempt."""

    directory: Path
    run: RunRecord | None
    """None: the remains of an interrupted removal."""
    age_s: float

    @property
    def name(self) -> str:
        """The run id."""
        return self.directory.name.removeprefix(ASIDE)

    @cached_property
    def size(self) -> int:
        """The bytes that its removal frees."""
        return _size(str(self.directory))


@dataclass(frozen=True)
class Plan:
    """The runs to remove, oldest first; why other old ones stay, by run id; entries that are not this user's runs."""

    goes: tuple[Stored, ...]
    stays: dict[str, str]
    young: int
    """How many runs stay because they are recent."""
    foreign: dict[str, str]
    """Entries of the results directory that look like runs but are left alone, and why."""


def plan(results: Path, keep: int | None, older_s: int | None, never: Collection[str] = ()) -> Plan:
    """Return the runs to remove: not among the `keep` newest and older than `older_s`, where given.

    Raises InputError if a run in `never` does not exist, or baselines or pinned runs cannot be read.
    """
    if not results.is_dir():
        raise InputError(f"{results}: there is no such directory.")
    named = _named(results, never)
    foreign: dict[str, str] = {}
    found = sorted(_stored(results, foreign), key=lambda one: (-one.age_s, one.name))
    runs = [one for one in found if one.run is not None]
    newest = {one.name for one in runs[len(runs) - min(keep or 0, len(runs)) :]}
    old = [one for one in runs if one.name not in newest and one.age_s > (older_s or 0)]
    named |= _newest_of_their_kinds(runs) if old else {}
    stays = {one.name: why for one in old if (why := named.get(one.name) or why_in_use(one))}
    cut_short = [one for one in found if one.run is None]
    goes = (*cut_short, *(one for one in old if one.name not in stays))
    return Plan(goes, stays, len(runs) - len(old), foreign)


def remove(stored: Stored) -> int:
    """Remove a run and return the bytes that this freed; other processes see all of the run, or nothing.

    Files that another prune removes meanwhile count as removed. Raises InputError if the run is in progress; OSError.
    """
    aside = stored.directory
    if not aside.is_dir():
        return 0
    freed = stored.size
    if stored.run is not None:
        if why := why_in_use(stored):
            raise InputError(f"{stored.name} stays: {why}.")
        aside = stored.directory.with_name(f"{ASIDE}{stored.name}")
        try:
            stored.directory.rename(aside)
        except FileNotFoundError:
            return 0
    while aside.is_dir():
        with suppress(FileNotFoundError):
            shutil.rmtree(aside)
    return freed


def why_in_use(stored: Stored) -> str:
    """Return why a run may still be in progress; empty if it is not."""
    run = stored.run
    if run is None:
        return ""
    if leader := leader_of(run):
        return f"it is in progress, under process {leader.pid} on this machine"
    if not (stored.directory / RESULT_FILE).is_file() and stored.age_s < UNFINISHED_S:
        return "it has no summary, and nodes may still be measuring: resume it, or wait until it is 8 days old"
    with ExitStack() as stack:
        for node in run.nodes:
            try:
                descriptor = os.open(stored.directory / NODES / node, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue
            stack.callback(os.close, descriptor)
            if take(descriptor) == "busy":
                return f"a process is working on the files of {node}"
    return ""


def _named(results: Path, never: Collection[str]) -> dict[str, str]:
    """Return the runs that are kept by name, and why."""
    named = {}
    for name in never:
        named[find_run(results, name).name] = "--never names it"
    if (results / PINNED).exists():
        lines = read_text(results / PINNED, 2**20).splitlines()
        named |= {line.partition("#")[0].strip(): f"{PINNED} names it" for line in lines}
    for name, baselines in read_baselines(results).names.items():
        named |= {one.run_id: f"it is the baseline {name!r}" for one in baselines.values()}
    if (results / "latest").is_symlink():
        named[(results / "latest").resolve().name] = "latest points to it"
    return named


def _stored(results: Path, foreign: dict[str, str]) -> Iterator[Stored]:
    for entry in sorted(os.scandir(results), key=lambda entry: entry.name):
        cut_short = entry.name.startswith(ASIDE)
        if not RUN_ID.fullmatch(entry.name.removeprefix(ASIDE)):
            continue
        seen = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(seen.st_mode):
            foreign[entry.name] = "it is a link" if entry.is_symlink() else "it is not a directory"
        elif seen.st_uid != os.geteuid():
            foreign[entry.name] = f"it belongs to the user {_user(seen.st_uid)}"
        elif cut_short:
            yield Stored(Path(entry.path), None, 0)
        else:
            try:
                run = read_run(Path(entry.path))
                if run.run_id != entry.name:
                    raise InputError(f"it holds the run {run.run_id}")
                at = datetime.fromisoformat(run.attempts[-1].at if run.attempts else run.created_at)
                age_s = (datetime.now(timezone.utc) - at).total_seconds()
            except (InputError, ValueError, TypeError) as error:
                foreign[entry.name] = str(error).rstrip(".")
            else:
                yield Stored(Path(entry.path), run, age_s)


class _Group(msgspec.Struct):
    key: dict[str, str]


class _Row(msgspec.Struct):
    counted: bool
    group: int | None = None
    gpus: int = 0
    rate: str = ""


class _Result(msgspec.Struct):
    """The fields of a ClusterResult that determine its kinds: a thousand results with hundreds of nodes are read."""

    nodes: list[_Row]
    groups: list[_Group]


def _newest_of_their_kinds(runs: list[Stored]) -> dict[str, str]:
    """Return the newest run of each kind; `runs` are sorted, oldest first."""
    newest: dict[_Kind, str] = {}
    named = {}
    for one in runs:
        path = one.directory / RESULT_FILE
        if not path.is_file():
            continue
        try:
            text = read_text(path, MAX_RESULT_BYTES)
            newest |= dict.fromkeys(_kinds(msgspec.json.decode(text, type=_Result)), one.name)
        except (InputError, msgspec.MsgspecError):
            named[one.name] = f"its {RESULT_FILE} cannot be read, so it may be the newest of its kind"
    return named | dict.fromkeys(newest.values(), "no newer run has the same settings and hardware")


def _kinds(result: _Result) -> Iterator[_Kind]:
    for row in result.nodes:
        if row.counted and row.group is not None and row.group < len(result.groups):
            yield tuple(sorted(result.groups[row.group].key.items())), row.gpus, row.rate


def _size(path: str) -> int:
    """Return the bytes that removing a directory frees: a file with another hard link frees nothing."""
    size = os.lstat(path).st_blocks * 512
    try:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                size += _size(entry.path)
            else:
                seen = entry.stat(follow_symlinks=False)
                size += seen.st_blocks * 512 if seen.st_nlink == 1 else 0
    except OSError:
        return size
    return size


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
