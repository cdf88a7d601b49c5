"""A node's earlier runs, for the diagnosis of one or two nodes that have no others to be held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.cluster.diagnosis.slow import MOST_EARLIER, Earlier
from benchmark.cluster.history.read import node_runs, run_ids
from benchmark.errors import InputError

# A results directory of many kinds of runs is not read to its beginning.
MOST_READ = 3 * MOST_EARLIER


def earlier_runs(run_dir: Path, comparison_key: Mapping[str, str]) -> Earlier:
    """Return what gives a node's values in runs before the one in `run_dir`, of each node's `comparison_key` alone.

    Nothing is read before it is asked for. Runs that cannot be read are none.
    """
    known: dict[str, list[Mapping[str, float]]] = {}
    looked = False

    def of(node: str) -> Sequence[Mapping[str, float]]:
        nonlocal looked
        if not looked:
            looked = True
            known.update(_read(run_dir, comparison_key))
        return known.get(node, ())

    return of


def _read(run_dir: Path, comparison_key: Mapping[str, str]) -> dict[str, list[Mapping[str, float]]]:
    found: dict[str, list[Mapping[str, float]]] = {}
    before = [run_id for run_id in run_ids(run_dir.parent) if run_id < run_dir.name]
    for run_id in before[-MOST_READ:]:
        try:
            runs = list(node_runs(run_dir.parent, run_id))
        except InputError:
            continue
        for run in runs:
            if comparison_key.get(run.node) == run.comparison_key:
                found.setdefault(run.node, []).append(run.values)
    return found
