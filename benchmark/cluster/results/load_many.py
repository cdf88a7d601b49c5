"""Read many nodes' files in parallel processes, one node at a time each."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmark.cluster.results.load import SAMPLES, LoadedNode, load_node
from benchmark.records import RunRecord, Slo
from benchmark.rundir import NODES

# A process needs some 85 MiB while it reads 13,368 samples with their tokens.
MOST_PROCESSES = 6
# Below this many bytes of samples, reading is faster than starting processes.
SMALL = 32 * 2**20

_run: tuple[Path, RunRecord, Slo | None] | None = None


def load_nodes(run_dir: Path, run: RunRecord, nodes: Sequence[str], slo: Slo | None = None) -> tuple[LoadedNode, ...]:
    """Return `load_node` of every node, in the order of `nodes`."""
    processes = min(os.cpu_count() or 1, MOST_PROCESSES, len(nodes))
    if processes < 2 or _samples_bytes(run_dir, nodes) <= SMALL:
        return tuple(load_node(run_dir, run, node, slo) for node in nodes)
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=(run_dir, run, slo)) as pool:
        loaded = tuple(pool.map(_load, nodes))
    # They live to the end: the garbage collector would search all of a thousand nodes again and again.
    gc.freeze()
    return loaded


def _begin(run_dir: Path, run: RunRecord, slo: Slo | None) -> None:
    global _run
    _run = run_dir, run, slo
    # Samples have no reference cycles, and looking for some takes as long as creating a file's tokens.
    gc.disable()


def _load(node: str) -> LoadedNode:
    if _run is None:
        raise RuntimeError("the process was not started")
    run_dir, run, slo = _run
    return load_node(run_dir, run, node, slo)


def _samples_bytes(run_dir: Path, nodes: Sequence[str]) -> int:
    """Return the size of the nodes' samples in bytes, without files that are missing or will be refused."""
    total = 0
    for node in nodes:
        for path in (run_dir / NODES / node).glob(f"*{SAMPLES}"):
            try:
                total += path.lstat().st_size
            except OSError:
                continue
    return total
