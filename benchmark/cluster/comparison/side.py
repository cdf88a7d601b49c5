"""One side of a comparison: a run, or one of its nodes, by comparison keys that can be matched with the other side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.cluster.arithmetic import comparison_key, gpus_of
from benchmark.cluster.diagnosis.aspects import rate_of
from benchmark.cluster.groups import as_rows
from benchmark.cluster.names import natural
from benchmark.cluster.repeats import at_repeat, median_of, repeats_of
from benchmark.cluster.results.groups import load_rows
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.results.system import load_system
from benchmark.cluster.system_result import system_node
from benchmark.errors import InputError
from benchmark.records import RunRecord, System
from benchmark.rundir import read_run
from benchmark.served import in_label

# Part of a comparison key that distinguishes two profiles of one name, and is not shown.
PROFILE_HASH = "profile_sha256"


@dataclass(frozen=True)
class ComparisonKey:
    """What two figures must share to be compared: settings, and hardware."""

    settings: tuple[tuple[str, str], ...]
    hardware: str

    @classmethod
    def of(cls, node: LoadedNode) -> ComparisonKey:
        """Return the comparison key of a counted node."""
        key = comparison_key(node)
        hardware = key.pop("hardware")
        if node.result is not None:
            # A schedule's rate decides how long queries wait.
            key["target_qps"] = rate_of(node.result)
        gpus = gpus_of(node)
        return cls(tuple(key.items()), f"{gpus} x {hardware}" if gpus else hardware)

    @property
    def label(self) -> str:
        """The comparison key in words: what was measured, and on what hardware."""
        key = dict(self.settings)
        parts = (key["profile"], *(in_label(name, key.get(name, "")) for name in ("dtype", "engine")), self.hardware)
        return ", ".join(filter(None, parts))

    def differences(self, other: ComparisonKey) -> list[str]:
        """Return the settings in which the two differ, in words; differences of profiles are not in their hash."""
        theirs = dict(other.settings)
        return [
            f"{name} is {in_label(name, theirs.get(name, '')) or 'not set'} instead of "
            f"{in_label(name, value) or 'not set'}"
            for name, value in self.settings
            if theirs.get(name) != value and name != PROFILE_HASH
        ]


@dataclass(frozen=True)
class Side:
    """The counted nodes of a run, or one of them, by comparison key."""

    name: str
    groups: dict[ComparisonKey, tuple[LoadedNode, ...]]


def load_side(run_dir: Path, node: str = "") -> Side:
    """Return the run, or one of its nodes. Raises InputError if it does not exist, or is not counted."""
    asked = read_run(run_dir)
    run = as_rows(asked)
    if node and node not in run.nodes:
        raise InputError(f"{node}: the run {run.run_id} has no node {node}; it has {', '.join(sorted(run.nodes))}.")
    if run.system is not None:
        return _side_of_system(run_dir, run, run.system, node)
    # The run's repeat is chosen from all of its nodes.
    needed = [one for one in sorted(run.nodes, key=natural) if node in ("", one) or _repeats(run) > 1]
    whole = load_rows(run_dir, asked, only=needed)
    nodes, _ = median_of(whole)
    count = repeats_of(whole)
    loaded = [
        replace(
            chosen,
            repeats=tuple(at_repeat(one, number) for number in range(1, count + 1)) if count > 1 else (chosen,),
        )
        for one, chosen in zip(whole, nodes, strict=True)
        if node in ("", chosen.node)
    ]
    reported = f"{run.run_id}/{node}" if node else run.run_id
    counted = [one for one in loaded if one.measured]
    if not counted:
        why = next((problem for one in loaded for problem in one.problems), "")
        raise InputError(f"{reported}: none of its nodes is counted, so there is nothing to compare. {why}".rstrip())
    return Side(reported, by_comparison_key(counted))


def _side_of_system(run_dir: Path, run: RunRecord, system: System, node: str) -> Side:
    if node:
        raise InputError(f"{node}: in the run {run.run_id} all nodes are one system: it is compared as a whole.")
    loaded = load_system(run_dir, run, system)
    if not loaded.driver.measured:
        raise InputError(f"{run.run_id}: the system is not counted, so there is nothing to compare.")
    count = repeats_of([loaded.whole])
    each = [system_node(replace(loaded, driver=at_repeat(loaded.whole, number))) for number in range(1, count + 1)]
    chosen = system_node(loaded)
    repeats = tuple(each) if count > 1 else (chosen,)
    return Side(run.run_id, by_comparison_key([replace(chosen, repeats=repeats)]))


def _repeats(run: RunRecord) -> int:
    return max((asked.measurements for asked in run.nodes.values()), default=1)


def by_comparison_key(counted: Sequence[LoadedNode]) -> dict[ComparisonKey, tuple[LoadedNode, ...]]:
    """Return like nodes together."""
    groups: dict[ComparisonKey, tuple[LoadedNode, ...]] = {}
    for node in counted:
        like = ComparisonKey.of(node)
        groups[like] = (*groups.get(like, ()), node)
    return groups
