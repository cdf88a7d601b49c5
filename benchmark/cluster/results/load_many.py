"""Read many nodes' files at once: each node is a piece of work of its own, and so are processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmark.cluster.results.load import SAMPLES, LoadedNode, load_node
from benchmark.records import RunRecord, Slo
from benchmark.rundir import NODES

# A process takes some 85 MiB while it reads 13,368 samples with their tokens.
MOST_PROCESSES = 6
# Bytes of samples that are read sooner than processes are started.
SMALL = 32 * 2**20

_run: tuple[Path, RunRecord, Slo | None] | None = None


def load_nodes(run_dir: Path, run: RunRecord, nodes: Sequence[str], slo: Slo | None = None) -> tuple[LoadedNode, ...]:
    """Return what each node's files say: `load_node` for every node, in the order of `nodes`."""
    processes = min(os.cpu_count() or 1, MOST_PROCESSES, len(nodes))
    if processes < 2 or _samples_bytes(run_dir, nodes) <= SMALL:
        return tuple(load_node(run_dir, run, node, slo) for node in nodes)
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=(run_dir, run, slo)) as pool:
        loaded = tuple(pool.map(_load, nodes))
    # They stay to the end: of a thousand nodes, the collector would look through all that again and again.
    gc.freeze()
    return loaded


def _begin(run_dir: Path, run: RunRecord, slo: Slo | None) -> None:
    global _run
    _run = run_dir, run, slo
    # Samples make no cycles, and where all tokens of a file are made, looking for some takes as long as making them.
    gc.disable()


def _load(node: str) -> LoadedNode:
    if _run is None:
        raise RuntimeError("the process was not begun")
    run_dir, run, slo = _run
    return load_node(run_dir, run, node, slo)


def _samples_bytes(run_dir: Path, nodes: Sequence[str]) -> int:
    """Return how large the nodes' samples are; a file that is not there, or that will be refused, counts nothing."""
    total = 0
    for node in nodes:
        for path in (run_dir / NODES / node).glob(f"*{SAMPLES}"):
            try:
                total += path.lstat().st_size
            except OSError:
                continue
    return total
