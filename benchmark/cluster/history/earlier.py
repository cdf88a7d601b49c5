"""A node's earlier runs, for the diagnosis of one or two nodes that have no others to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.cluster.diagnosis.slow import Earlier
from benchmark.cluster.stored.index import runs_up_to
from benchmark.errors import InputError


def earlier_runs(run_dir: Path, comparison_key: Mapping[str, str]) -> Earlier:
    """Return a function that gives a node's values in runs before `run_dir`, with the same `comparison_key`.

    Files are read on the first call. Unreadable runs are ignored.
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
    try:
        runs = runs_up_to(run_dir)
    except InputError:
        return found
    for run in runs[:-1]:
        for node, key in comparison_key.items():
            one = run.node(node)
            if one is not None and one.delivered and one.comparison_key == key:
                found.setdefault(node, []).append(one.values)
    return found
