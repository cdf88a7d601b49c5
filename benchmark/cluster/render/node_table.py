"""`nodes.csv`: one line per node, for spreadsheets and notebooks. Values are not rounded; empty means undefined.

Every file has the columns of HEADS, so that the files of many runs can be concatenated. They are followed by those of
the cost, if a node has a price, and of the nodes' probes, with the same names in every run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from benchmark.cluster.aggregate import Gathered
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.solo import FIGURES
from benchmark.probed import NodeFigure, column, figures, in_order
from benchmark.records import AnswerCounts, Cost, Distribution, Goodput, Metrics, NodeRow, QueryCounts, Slo
from benchmark.repeats import SPREAD_OF
from benchmark.text.columns import clean


def _column(metric: str) -> str:
    return metric.replace(".", "_")


_COUNTS = tuple(QueryCounts.model_fields)
_ANSWERS = tuple(AnswerCounts.model_fields)
_SPREAD = tuple(name for name in Distribution.model_fields if name != "insufficient")
_SPREADS = tuple(name for name in Metrics.model_fields if name.endswith("_ms"))
_PLAIN = ("duration_s", "qps", "tokens_per_s", "input_tokens", "output_tokens")
_ENERGY = ("joules", "idle_w", "tokens_per_joule", "joules_per_query")
_COST = tuple(Cost.model_fields)
_GOODPUT = tuple(name for name in Goodput.model_fields if name != "slo")
_SLO = tuple(Slo.model_fields)
_LIMITS = ("least_tpot_ms", "times_least_tpot", "most_tokens_per_s", "share_of_most_tokens")
_OVER_REPEATS = ("median", "lowest", "highest", "cv", "stable")
_OF_SOLO = ("alone", "together", "change")
HEADS = (
    *("run_id", "node", "status", "counted", "valid", "group", "hardware", "gpus", "simulated"),
    *(f"queries_{name}" for name in _COUNTS),
    *(f"answers_{name}" for name in _ANSWERS),
    *_PLAIN,
    *(f"{spread}_{part}" for spread in _SPREADS for part in _SPREAD),
    *_ENERGY,
    *(f"goodput_{name}" for name in _GOODPUT),
    *(f"goodput_limit_{name}" for name in _SLO),
    "cached_prompt_tokens",
    *(f"roofline_{name}" for name in _LIMITS),
    *("repeats", "repeat", "served_share", "members"),
    *(f"repeats_{_column(metric)}_{part}" for metric in SPREAD_OF for part in _OVER_REPEATS),
    *(f"solo_{_column(metric)}_{part}" for metric in FIGURES for part in _OF_SOLO),
    "reason",
)


def render_node_table(gathered: Gathered) -> str:
    """Return the table as CSV with a heading line."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(node_heads(gathered))
    for row in node_rows(gathered):
        writer.writerow([cell(value) for value in row])
    return target.getvalue()


def node_heads(gathered: Gathered) -> list[str]:
    """Return the column names: those of every run, of the cost if there is a price, and of the probes.

    Each probe has its median and, with several GPUs, the worst value.
    """
    cost = [f"cost_{name}" for name in _COST] if _priced(gathered) else []
    return [*HEADS, *cost, *(name for one, several in _probes(gathered) for name in _columns(one, several))]


def node_rows(gathered: Gathered) -> Iterator[list[object]]:
    """Yield the values of every node in the order of `node_heads`; None means undefined."""
    nodes = {node.node: node for node in gathered.nodes}
    repeats, probes = gathered.result.repeats, _probes(gathered)
    priced = _COST if _priced(gathered) else ()
    for row in gathered.result.nodes:
        of = (len(repeats.rows), repeats.chosen) if repeats and row.counted else (None, None)
        cost = [getattr(row.cost, name, None) for name in priced]
        yield [*_values(gathered.result.run_id, row, nodes[row.node], of), *cost, *_probe_values(row, probes)]


def _priced(gathered: Gathered) -> bool:
    return any(row.cost for row in gathered.result.nodes)


def _probes(gathered: Gathered) -> list[tuple[NodeFigure, bool]]:
    """Return each figure of the nodes, and whether it is measured in several places: on GPUs, or between them."""
    return [
        (one, one.places[0].gpu is not None) for one in in_order(figures(row.probes) for row in gathered.result.nodes)
    ]


def _columns(one: NodeFigure, several: bool) -> list[str]:
    name = column(one.name, one.unit)
    return [name, f"{name}_worst"] if several else [name]


def _probe_values(row: NodeRow, probes: Sequence[tuple[NodeFigure, bool]]) -> Iterator[float | None]:
    found = figures(row.probes)
    for one, several in probes:
        # With another unit it would be another column.
        has = found.get(one.name)
        has = has if has and has.unit == one.unit else None
        yield has.median if has else None
        if several:
            yield has.worst.value if has else None


def _values(run_id: str, row: NodeRow, node: LoadedNode, repeats: tuple[int | None, int | None]) -> list[object]:
    metrics = row.metrics
    telemetry = node.result.telemetry if node.result else None
    energy = telemetry.energy if telemetry else None
    cells: list[object] = [run_id, row.node, row.status, row.counted, row.verdict.valid if row.verdict else None]
    cells += [row.group, row.gpu, row.gpus, row.simulated]
    cells += [getattr(metrics.queries, name) if metrics else None for name in _COUNTS]
    cells += [getattr(metrics.answers, name) if metrics else None for name in _ANSWERS]
    cells += [getattr(metrics, name, None) for name in _PLAIN]
    for name in _SPREADS:
        spread = getattr(metrics, name, None)
        cells += [getattr(spread, part, None) for part in _SPREAD]
    cells += [getattr(energy, name, None) for name in _ENERGY]
    cells += [getattr(row.goodput, name, None) for name in _GOODPUT]
    cells += [getattr(row.goodput.slo if row.goodput else None, name, None) for name in _SLO]
    cells.append(row.prefix_cache.cached_tokens if row.prefix_cache else None)
    cells += [getattr(row.roofline, name, None) for name in _LIMITS]
    cells += [*repeats, row.served.share if row.served else None, " ".join(row.members) or None]
    over, solo = {one.metric: one for one in row.spread}, {one.metric: one for one in row.solo}
    cells += [getattr(over.get(metric), part, None) for metric in SPREAD_OF for part in _OVER_REPEATS]
    cells += [getattr(solo.get(metric), part, None) for metric in FIGURES for part in _OF_SOLO]
    cells.append(" ".join(row.reason.splitlines()))
    return cells


def cell(value: object) -> object:
    """Return a value for a spreadsheet: text from a node must not become a formula there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = clean(value)
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return value
