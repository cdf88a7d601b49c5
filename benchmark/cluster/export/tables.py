"""The exported tables: column names, and rows of values. None means undefined, never zero."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cluster.aggregate import Gathered
from benchmark.cluster.render.node_table import HEADS, node_heads, node_rows
from benchmark.columns import Columns
from benchmark.files import read_samples
from benchmark.metrics import latencies_ms, tpots_ms, ttfts_ms
from benchmark.probed import figures
from benchmark.records import DRIVER, CurvePoint, Sample
from benchmark.rundir import NODES

SAMPLE_FIELDS = tuple(name for name in Sample.model_fields if name != "token_ids")
SAMPLE_HEADS = ("run_id", "node", *SAMPLE_FIELDS, "latency_ms", "ttft_ms", "tpot_ms")

# Fields of a step: single values, and records of several.
POINT_FIELDS = tuple(name for name in CurvePoint.model_fields if name not in ("cost", "goodput"))
POINT_PARTS = {
    "cost": ("currency", "per_million_output_tokens", "per_million_input_tokens"),
    "goodput": ("share", "qps", "tokens_per_s", "users"),
}
PROBE_HEADS = ("run_id", "node", "gpu", "to_gpu", "probe", "value", "unit", "better")


# Columns that fit a page of text: the others are for spreadsheets.
FOR_PEOPLE = (
    *("node", "members", "status", "valid", "hardware", "gpus"),
    *("served_share", "queries_completed", "queries_failed", "queries_unfinished"),
    *("qps", "tokens_per_s", "latency_ms_p50", "latency_ms_p99", "ttft_ms_p50", "ttft_ms_p99"),
    *("tpot_ms_p50", "tpot_ms_p99", "goodput_share", "goodput_tokens_per_s", "goodput_users"),
    *("joules", "tokens_per_joule", "cost_currency", "cost_per_million_output_tokens"),
    *("repeats", "repeats_qps_cv", "repeats_qps_stable", "reason"),
)


@dataclass(frozen=True)
class Rows:
    """A table that may be larger than memory: its rows are generated one by one."""

    heads: Sequence[str]
    rows: Iterable[Sequence[object]]


def nodes_of(gathered: Gathered, for_people: bool = False) -> Rows:
    """Return a row for every node of the run; `for_people`: only the columns for a page of text."""
    heads = node_heads(gathered)
    if for_people:
        # Probes are shown if there is nothing else to show.
        asked = any(row.metrics for row in gathered.result.nodes)
        shown = [head for head in heads if head in FOR_PEOPLE or (head not in HEADS and not asked)]
    else:
        shown = heads
    places = [heads.index(head) for head in shown]
    return Rows(shown, ([row[place] for place in places] for row in node_rows(gathered)))


def probes_of(gathered: Gathered) -> Rows:
    """Return a row for every value of a probe: of a node, a GPU or a pair of GPUs."""
    return Rows(PROBE_HEADS, _probes(gathered))


def _probes(gathered: Gathered) -> Iterator[Sequence[object]]:
    for row in gathered.result.nodes:
        for one in figures(row.probes).values():
            for place in one.places:
                where = (gathered.run.run_id, row.node, place.gpu, place.peer)
                yield [*where, one.name, place.value, one.unit or None, one.better]


def curves_of(gathered: Gathered) -> Rows:
    """Return a row for each step of a sweep: of every node that measured it, and of each group in all."""
    sweep = gathered.result.sweep
    points = [point for curve in (sweep.curves if sweep else ()) for point in curve.points]
    # Without a price, or limits, there are no such columns.
    parts = [name for name in POINT_PARTS if any(getattr(point, name) for point in points)]
    heads = [f"{name}_{part}" for name in parts for part in POINT_PARTS[name]]
    return Rows(("run_id", "kind", "of", "by", *POINT_FIELDS, *heads, "knee", "ended"), _curves(gathered, parts))


def _curves(gathered: Gathered, parts: Sequence[str]) -> Iterator[Sequence[object]]:
    sweep = gathered.result.sweep
    for curve in sweep.curves if sweep else ():
        for point in curve.points:
            of_step = [getattr(point, name) for name in POINT_FIELDS]
            of_step += [getattr(getattr(point, name), part, None) for name in parts for part in POINT_PARTS[name]]
            yield [gathered.run.run_id, curve.kind, curve.of, sweep and sweep.by, *of_step, curve.knee, curve.ended]


def samples_of(gathered: Gathered, run_dir: Path) -> Rows:
    """Return a row for every sample of the nodes whose files are not refused; token ids are left out."""
    return Rows(SAMPLE_HEADS, _samples(gathered, run_dir))


def _samples(gathered: Gathered, run_dir: Path) -> Iterator[Sequence[object]]:
    system = gathered.system
    for node in gathered.nodes if system is None else (system.driver,):
        if node.refused or node.metrics is None:
            continue
        place = run_dir / NODES / node.directory if system is None else run_dir / DRIVER
        samples = read_samples(place / node.samples)
        columns = Columns.of(samples)
        times = [each(columns).tolist() for each in (latencies_ms, ttfts_ms, tpots_ms)]
        for sample, *of_sample in zip(samples, *times, strict=True):
            fields = [getattr(sample, name) for name in SAMPLE_FIELDS]
            yield [
                gathered.run.run_id,
                node.node,
                *fields,
                *(None if math.isnan(value) else value for value in of_sample),
            ]
