"""Resume a run: which one, with what settings, which of its nodes are left, and whether it is still in progress."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.cluster.groups import rows_of
from benchmark.cluster.leader import leader_of
from benchmark.cluster.names import natural, some
from benchmark.cluster.results.differences import differences
from benchmark.errors import InputError
from benchmark.records import RunRecord, System
from benchmark.resolve import resolve, resolve_nodes
from benchmark.rundir import PROGRAM
from benchmark.settings import RUN_WIDE, ResolvedSettings, check_settings

# Settings that affect no figure: where runs are stored, who is notified, and the exit code.
FREE = ("benchmark_results_dir", "benchmark_prometheus_dir", "benchmark_fail_on_invalid")

Given = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Remaining:
    """What a resumed run must do. `notes`: sentences on nodes that are new or gone, or left for later."""

    todo: tuple[str, ...]
    done: tuple[str, ...]
    notes: tuple[str, ...]


def require_ended(run: RunRecord) -> None:
    """Raise InputError if the process that leads the last attempt is still alive on this machine."""
    if leader := leader_of(run):
        raise InputError(
            f"benchmark_resume: the run {run.run_id} is still going, under process {leader.pid} on this machine. Wait "
            "for its end, or end that process."
        )


def settings_to_resume(run: RunRecord, given: Given, on_command_line: Collection[str]) -> dict[str, ResolvedSettings]:
    """Return the settings of every node in `given`: the stored ones, and for a new node settings that fit them.

    Values that -e gave when the run was opened, but not now, are taken from the run. Raises InputError that names every
    difference and its nodes.
    """
    problems: dict[str, list[str]] = {}
    version = run.versions.get(PROGRAM, __version__)
    if version != __version__:
        problems[f"This is version {__version__} of the program; the run was made with {version}."] = []
    earlier = set(run.on_command_line) - set(on_command_line)
    resolved: dict[str, ResolvedSettings] = {}
    new: dict[str, dict[str, Any]] = {}
    for node, variables in given.items():
        now = {name: value for name, value in variables.items() if name not in earlier and name not in FREE}
        stored = run.nodes.get(node)
        if stored is None:
            new[node] = {**_shared(run, {*earlier, *FREE}), **now}
            continue
        resolved[node] = stored
        for problem in _changes(stored, now):
            problems.setdefault(problem, []).append(node)
    resolved |= _fitting(run, new, problems)
    if problems:
        reported = [problem + (f" [{some(nodes)}]" if nodes else "") for problem, nodes in problems.items()]
        raise InputError(
            "\n".join(
                [
                    f"benchmark_resume: the settings differ from those that the run {run.run_id} was made with:",
                    *reported,
                    "Set them back, or start a new run without benchmark_resume. Nothing was touched.",
                ]
            )
        )
    return {node: resolved[node] for node in given}


def left_out(run: RunRecord, play: Iterable[str], named: bool) -> tuple[str, ...]:
    """Return the nodes of the play that stay out of the run because it was opened without them (--limit).

    Empty if the nodes of the play are `named` now.
    """
    return (
        () if named or not run.limited else tuple(sorted((node for node in play if node not in run.nodes), key=natural))
    )


def remaining(run_dir: Path, run: RunRecord, play: Iterable[str], inventory: Collection[str]) -> Remaining:
    """Return the nodes of the play to be measured: those without a complete result that passes the checks.

    A group is measured as a whole, and so is a system. Raises InputError if part of one is not in the play.
    """
    # Imported here: only a resumed run reads samples (numpy), and every run loads this module.
    from benchmark.cluster.results.groups import load_rows

    nodes = sorted(play, key=natural)
    if run.system is not None:
        return _remaining_of_system(run_dir, run, run.system, nodes)
    left = {name: of for name, of in rows_of(run).items() if not load_rows(run_dir, run, only=[name])[0].counted}
    _require_whole(run, left, nodes)
    missing = {node for of in left.values() for node in of}
    done = [node for node in nodes if node in run.nodes and node not in missing]
    new = [node for node in nodes if node not in run.nodes]
    gone = [node for node in run.nodes if node not in inventory]
    later = [node for node in missing if node in inventory and node not in nodes]
    notes = []
    if gone:
        notes.append(f"No longer in the inventory, and left as they are in the run: {_names(gone)}.")
    if new:
        notes.append(f"New to the run, measured and added to it: {_names(new)}.")
    if later:
        notes.append(f"Without a complete result, and not in this play (--limit): {_names(later)}.")
    return Remaining(tuple(node for node in nodes if node not in set(done)), tuple(done), tuple(notes))


def _require_whole(run: RunRecord, left: Mapping[str, Collection[str]], play: Collection[str]) -> None:
    """Raise InputError if the play has only part of a group that is to be measured."""
    problems = [
        f"benchmark_resume: the group {name} of the run {run.run_id} is measured as a whole, and its {_names(out)} is "
        "not in this play: name all of its nodes, or none."
        for name, nodes in left.items()
        if (out := [node for node in nodes if node not in play]) and len(out) < len(nodes)
    ]
    if problems:
        raise InputError("\n".join(problems))


def _remaining_of_system(run_dir: Path, run: RunRecord, system: System, nodes: Collection[str]) -> Remaining:
    """Return all nodes or none: they form one system, which has been measured or not."""
    from benchmark.cluster.results.system import load_system

    if set(nodes) != set(run.nodes):
        raise InputError(
            f"benchmark_resume: the run {run.run_id} is of one system, the nodes {_names(run.nodes)}: resume it with "
            "these and no others."
        )
    loaded = load_system(run_dir, run, system)
    whole = all(one.counted for one in (loaded.driver, *loaded.nodes))
    return Remaining((), tuple(nodes), ()) if whole else Remaining(tuple(nodes), (), ())


def _changes(stored: ResolvedSettings, now: Mapping[str, Any]) -> list[str]:
    """Return a sentence for everything that was set differently when the run was made."""
    try:
        merged = {**stored.settings.model_dump(), **now}
        # Unless a profile is given now, the run's own is used, from run.json: its file may be gone.
        asked = resolve(merged) if "benchmark_profile" in now else None
        settings = asked.settings if asked else check_settings(merged)
    except InputError as error:
        return str(error).splitlines()
    pairs = list(differences(settings.model_dump(), stored.settings.model_dump()))
    if asked is not None and not pairs:
        kept = stored.profile.model_dump()
        pairs = [(f"The profile's {path}", a, b) for path, a, b in differences(asked.profile.model_dump(), kept)]
    return [f"{path} is {value!r}; the run was made with {before!r}." for path, value, before in pairs]


def _shared(run: RunRecord, names: Collection[str]) -> dict[str, Any]:
    """Return the settings that are equal in all nodes of the run."""
    each = [asked.settings.model_dump() for asked in run.nodes.values()]
    return {
        name: each[0][name] for name in names if name in each[0] and all(one[name] == each[0][name] for one in each)
    }


def _fitting(
    run: RunRecord, new: dict[str, dict[str, Any]], problems: dict[str, list[str]]
) -> dict[str, ResolvedSettings]:
    """Return the settings of new nodes; settings of the whole run must be unchanged."""
    if not new:
        return {}
    try:
        resolved = resolve_nodes(new)
    except InputError as error:
        problems |= {line: [] for line in str(error).splitlines()}
        return {}
    of_run = next(iter(run.nodes.values())).settings
    for node, asked in resolved.items():
        if group := asked.settings.benchmark_group:
            problem = f"benchmark_group is {group!r} on a node that is new to the run, whose groups are fixed."
            problems.setdefault(problem, []).append(node)
        for name in RUN_WIDE:
            value, before = getattr(asked.settings, name), getattr(of_run, name)
            if name not in FREE and value != before:
                problems.setdefault(f"{name} is {value!r}; the run was made with {before!r}.", []).append(node)
    return resolved


def _names(names: Collection[str]) -> str:
    return some(sorted(names, key=natural), most=20)
