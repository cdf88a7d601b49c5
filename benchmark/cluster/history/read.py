"""What runs of a results directory say of each node: from their cluster results, never from samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.cluster.diagnosis.aspects import ENERGY
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.records import ClusterResult, Group, NodeRow
from benchmark.rundir import RESULT_FILE
from benchmark.served import in_label
from benchmark.settings import canonical_sha256
from benchmark.verdict import value_of

METRICS = ("qps", "tokens_per_s", "latency_ms.p50", "ttft_ms.p50", "tpot_ms.p50")


@dataclass(frozen=True)
class NodeRun:
    """One node in one run."""

    run_id: str
    node: str
    comparison_key: str
    label: str
    rate: str
    valid: bool
    values: dict[str, float]


def run_ids(results: Path) -> list[str]:
    """Return the runs that have a cluster's result, the oldest first: an id begins with its UTC time."""
    if not results.is_dir():
        raise InputError(f"{results}: there is no such directory.")
    return sorted(
        path.name
        for path in results.iterdir()
        if not path.is_symlink() and not path.name.startswith(".") and (path / RESULT_FILE).is_file()
    )


def node_runs(results: Path, run_id: str) -> Iterator[NodeRun]:
    """Yield every counted node of a run. Raises InputError for a cluster's result that cannot be read."""
    result = read_record(results / run_id / RESULT_FILE, ClusterResult)
    for row in result.nodes:
        if row.counted and row.metrics is not None and row.group is not None and row.group < len(result.groups):
            yield _node_run(run_id, row, result.groups[row.group])


def history_key(group: Group, row: NodeRow) -> str:
    """Return the hash of what must be equal for a node's runs to be one series."""
    return canonical_sha256([sorted(group.key.items()), row.gpus, row.rate])[:16]


def _node_run(run_id: str, row: NodeRow, group: Group) -> NodeRun:
    values = {}
    for metric in METRICS:
        value = value_of(row.metrics, metric) if row.metrics else None
        if value is not None and value > 0:
            values[metric] = value
    if row.energy is not None and (row.energy.tokens_per_joule or 0) > 0:
        values[ENERGY] = float(row.energy.tokens_per_joule or 0)
    key = group.key
    parts = [key.get("profile", ""), in_label("dtype", key.get("dtype", "")), key.get("engine", ""), row.gpu or ""]
    rate = f"at {row.rate} queries/s" if row.rate and row.rate != "searched" else ""
    return NodeRun(
        run_id=run_id,
        node=row.node,
        comparison_key=history_key(group, row),
        label=", ".join(part for part in (*parts, rate) if part)[:4000],
        rate=row.rate,
        valid=row.verdict is not None and row.verdict.valid,
        values=values,
    )
