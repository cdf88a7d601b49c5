"""Nodes of runs in Prometheus' text format, for the node exporter's textfile collector.

Names end with their unit, in base units (seconds, joules, watts); every metric is a gauge: it is what one run measured.
Probes are one metric, each with its own unit in a label, since there may be any.
Every series carries its node and what was asked of it, a run's own figures too: so files of several runs, profiles and
engines stand beside each other, as long as no two are of the same node and the same request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from benchmark.cluster.stored.read import KIND, fallback_of, kind_of
from benchmark.probed import figures
from benchmark.records import ClusterResult, Energy, Finding, Goodput, Group, Metrics, NodeRow, Roofline, RunRecord
from benchmark.text.columns import clean

PREFIX = "llm_benchmark_"
# Labels of a time's gauge: quantiles by Prometheus' own name, the rest by statistic.
STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "max")

Labels = dict[str, str]
Value = Callable[[NodeRow], float | None]


def _of(read: Callable[[Metrics], float | None]) -> Value:
    return lambda row: read(row.metrics) if row.metrics else None


def _energy(read: Callable[[Energy], float | None]) -> Value:
    return lambda row: read(row.energy) if row.energy else None


def _good(read: Callable[[Goodput], float | None]) -> Value:
    return lambda row: read(row.goodput) if row.goodput else None


def _limit(read: Callable[[Roofline], float | None]) -> Value:
    return lambda row: read(row.roofline) if row.roofline else None


def _maybe(count: int | None) -> float | None:
    return None if count is None else float(count)


STATES: dict[str, tuple[str, Callable[[NodeRow], bool]]] = {
    "node_counted": ("1 where the node's numbers are part of the totals", lambda row: row.counted),
    "node_valid": ("1 where the node's verdict is valid", lambda row: bool(row.verdict and row.verdict.valid)),
}
GAUGES: dict[str, tuple[str, Value]] = {
    "gpus": ("GPUs that answered", lambda row: float(row.gpus)),
    "probes_seconds": ("how long the probes took", lambda row: row.probes.seconds if row.probes else None),
    "duration_seconds": ("last completion minus first issue", _of(lambda m: m.duration_s)),
    "queries_per_second": ("completed queries per second", _of(lambda m: m.qps)),
    "output_tokens_per_second": ("output tokens per second", _of(lambda m: m.tokens_per_s)),
    "output_tokens": ("output tokens of completed queries", _of(lambda m: float(m.output_tokens))),
    "cached_prompt_tokens": (
        "prompt tokens from servers' caches; no value: not reported",
        lambda row: _maybe(row.prefix_cache.cached_tokens) if row.prefix_cache else None,
    ),
    "served_ratio": (
        "part of the completed queries of a system of several nodes",
        lambda row: row.served.share if row.served else None,
    ),
    "least_tpot_seconds": (
        "least time per output token that a GPU's own memory allows, by its probe",
        _limit(lambda limits: None if limits.least_tpot_ms is None else limits.least_tpot_ms / 1000),
    ),
    "most_output_tokens_per_second_and_gpu": (
        "most output tokens per second that a GPU's own matrix rate allows, by its probe",
        _limit(lambda limits: limits.most_tokens_per_s),
    ),
    "goodput_ratio": ("queries that met the limits of TTFT and TPOT, of those planned", _good(lambda g: g.share)),
    "goodput_queries_per_second": ("queries per second that met them", _good(lambda g: g.qps)),
    "goodput_output_tokens_per_second": ("their output tokens per second", _good(lambda g: g.tokens_per_s)),
    "goodput_limit_ttft_seconds": (
        "limit of the time to the first token that goodput is held against",
        _good(lambda g: None if g.slo.ttft_ms is None else g.slo.ttft_ms / 1000),
    ),
    "goodput_limit_tpot_seconds": (
        "limit of the time per output token that goodput is held against",
        _good(lambda g: None if g.slo.tpot_ms is None else g.slo.tpot_ms / 1000),
    ),
    "queries_in_flight": ("queries in progress, mean over the measured time", _good(lambda g: g.in_flight)),
    "users": (
        "queries in progress for at least half of the measured time",
        _good(lambda g: None if g.users is None else float(g.users)),
    ),
    "energy_joules": ("by the GPUs' own counters, in the measuring window", _energy(lambda e: e.joules)),
    "idle_watts": ("mean power of the GPUs before the window, model loaded", _energy(lambda e: e.idle_w)),
    "output_tokens_per_joule": ("output tokens per joule", _energy(lambda e: e.tokens_per_joule)),
    "query_energy_joules": ("joules per completed query", _energy(lambda e: e.joules_per_query)),
}
RATES = {"qps": "queries_per_second", "tokens_per_s": "output_tokens_per_second"}
COSTS = {
    "per_hour": "price of the GPUs that answered, for an hour",
    "per_million_output_tokens": "price of the time that a million output tokens take",
    "per_million_input_tokens": "price of the time in which a million tokens of prompts are answered",
}
TIMES = {
    "latency_seconds": ("latency_ms", "completed minus scheduled"),
    "ttft_seconds": ("ttft_ms", "first token minus scheduled"),
    "tpot_seconds": ("tpot_ms", "time per output token after the first"),
}

# Of a step of a sweep: what it means, the point's field, and what makes it the metric's unit.
CURVES = {
    "output_tokens_per_second": ("output tokens", "tokens_per_s", 1.0),
    "output_tokens_per_second_per_gpu": ("output tokens of one GPU", "tokens_per_s_per_gpu", 1.0),
    "output_tokens_per_second_per_user": ("1 / P50 of the time per output token", "tokens_per_s_per_user", 1.0),
    "ttft_p99_seconds": ("P99 of the time to the first token", "ttft_p99_ms", 0.001),
    "tpot_p99_seconds": ("P99 of the time per output token", "tpot_p99_ms", 0.001),
    "latency_p99_seconds": ("P99 latency", "latency_p99_ms", 0.001),
}


@dataclass(frozen=True)
class Exported:
    """A run, and those of its nodes that are exported."""

    run: RunRecord
    result: ClusterResult
    nodes: frozenset[str]

    origin: str = ""
    """The results directory, where several share a file."""

    @property
    def rows(self) -> Iterator[NodeRow]:
        """The nodes that are exported."""
        return (row for row in self.result.nodes if row.node in self.nodes)


def labels_of(run: RunRecord, row: NodeRow, groups: Sequence[Group]) -> Labels:
    """Return what tells a node's series apart from all others; every series begins with these labels."""
    kind = kind_of(run.nodes[row.node], fallback_of(row, groups))
    return {"node": row.node, **dict(zip(KIND, kind, strict=True))}


def whole(run: RunRecord, result: ClusterResult) -> Exported:
    """Return all nodes of one run."""
    return Exported(run, result, frozenset(run.nodes))


def prometheus_lines(runs: Sequence[Exported]) -> Iterator[str]:
    """Yield the lines of the text format; labels are escaped, undefined values left out.

    The runs must not have the same node with the same request twice.
    """
    found = [(labels_of(one.run, row, one.result.groups), row, one) for one in runs for row in one.rows]
    yield from _metric("run_info", "which run a node's values are of", [
        ({**labels, "run_id": one.run.run_id, "results_dir": one.origin}, 1.0) for labels, _, one in found
    ])  # fmt: skip
    yield from _metric("run_created_timestamp_seconds", "when that run was opened", [
        (labels, created) for labels, _, one in found if (created := _unix_s(one.run.created_at)) is not None
    ])  # fmt: skip
    yield from _metric("run_valid", "1 where that run's verdict, of all its nodes, is valid", [
        (labels, float(one.result.verdict.valid)) for labels, _, one in found
    ])  # fmt: skip
    for name, (meaning, read) in STATES.items():
        yield from _metric(name, meaning, [(labels, float(read(row))) for labels, row, _ in found])
    # Of what was measured, the hardware too; a node that failed goes on with the series above.
    found = [({**labels, "hardware": row.gpu or ""}, row, one) for labels, row, one in found if row.counted]
    rows = [(labels, row) for labels, row, _ in found]
    for name, (meaning, read_value) in GAUGES.items():
        values = [(labels, value) for labels, row in rows if (value := read_value(row)) is not None]
        yield from _metric(name, meaning, values)
    yield from _metric("queries", "queries of the run by what became of them", [
        ({**labels, "state": state}, float(count))
        for labels, row in rows if row.metrics
        for state, count in row.metrics.queries.model_dump().items()
    ])  # fmt: skip
    for name, (field, meaning) in TIMES.items():
        spreads = [(labels, getattr(row.metrics, field)) for labels, row in rows if row.metrics]
        yield from _metric(name, meaning, [
            ({**labels, "statistic": statistic}, getattr(spread, statistic) / 1000)
            for labels, spread in spreads if spread
            for statistic in STATISTICS
        ])  # fmt: skip
    for name, meaning in COSTS.items():
        priced = [({**labels, "currency": row.cost.currency}, row.cost, name) for labels, row in rows if row.cost]
        yield from _metric(f"cost_{name}", meaning, [
            (labels, value) for labels, cost, field in priced if (value := getattr(cost, field)) is not None
        ])  # fmt: skip
    yield from _system(found)
    yield from _repeats(found)
    yield from _curves(found)
    yield from _alone(rows)
    yield from _metric("probe", "what a probe of the hardware gave, in its unit", [
        ({**labels, "gpu": gpu, "probe": name, "unit": unit}, value)
        for labels, row in rows
        for gpu, name, unit, value in _probed(row)
    ])  # fmt: skip
    yield from _metric("slow_node_change_ratio", "how far a slow node is from its peers: value / expected - 1", [
        ({**labels, **_what(finding)}, finding.change)
        for labels, row, one in found
        for finding in one.result.findings if finding.node == row.node
    ])  # fmt: skip


def _probed(row: NodeRow) -> Iterator[tuple[str, str, str, float]]:
    """Yield GPU, name, unit and value of each probe; a pair of GPUs is in the name, and the GPU is then the first."""
    for one in figures(row.probes).values():
        for place in one.places:
            yield "" if place.gpu is None else str(place.gpu), place.name, one.unit, place.value


def _what(finding: Finding) -> Labels:
    """Return what is slow, and why: several GPUs of a node may be slow in the same metric."""
    return {"metric": finding.metric, "gpu": finding.place.removeprefix("GPU "), "cause": finding.cause or "none seen"}


def _system(found: Sequence[tuple[Labels, NodeRow, Exported]]) -> Iterator[str]:
    """Yield the figures of all nodes together, of which each node had a part; nothing where they are no system."""
    whole = [(labels, one.result.system.metrics) for labels, _, one in found if one.result.system]
    wholes = [(labels, metrics) for labels, metrics in whole if metrics is not None]
    values = [(path, labels, getattr(metrics, path)) for labels, metrics in wholes for path in RATES]
    values += [
        (f"{field}.{statistic}", labels, getattr(spread, statistic))
        for labels, metrics in wholes
        for field, _ in TIMES.values()
        if (spread := getattr(metrics, field))
        for statistic in STATISTICS
    ]
    meaning = "of the whole system that a node is part of: the same for each of its nodes, and never to be added up"
    yield from _by_unit(
        "system_", meaning, [(path, labels, value) for path, labels, value in values if value is not None]
    )


def _repeats(found: Sequence[tuple[Labels, NodeRow, Exported]]) -> Iterator[str]:
    """Yield how far the repeats of a run differ; nothing where there is one."""
    several = [(labels, row, one.result.repeats) for labels, row, one in found if one.result.repeats]
    yield from _metric("repeats", "measurements with the model loaded once", [
        (labels, float(len(repeats.rows))) for labels, _, repeats in several
    ])  # fmt: skip
    yield from _metric("repeat", "number of the one that all other values are of", [
        (labels, float(repeats.chosen)) for labels, _, repeats in several
    ])  # fmt: skip
    spreads = [(labels, one) for labels, row, _ in several for one in row.spread]
    meaning = "over the repeats: median, lowest and highest"
    yield from _by_unit("repeats_", meaning, [
        (one.metric, {**labels, "over": over}, getattr(one, over))
        for labels, one in spreads for over in ("median", "lowest", "highest")
    ])  # fmt: skip
    for name, meaning, field in (
        ("repeats_variation_ratio", "coefficient of variation over the repeats", "cv"),
        ("repeats_stable", "1 where the repeats differ by so little that the value is stable", "stable"),
    ):
        values = [({**labels, "metric": one.metric}, float(getattr(one, field))) for labels, one in spreads]
        yield from _metric(name, meaning, values)


def _curves(found: Sequence[tuple[Labels, NodeRow, Exported]]) -> Iterator[str]:
    """Yield each node's figures in each step of a sweep, and its knee; nothing where there is none."""
    curves = [
        (labels, sweep.by, curve)
        for labels, row, one in found
        if (sweep := one.result.sweep)
        for curve in sweep.curves
        if curve.kind == "node" and curve.of == row.node
    ]
    for name, (meaning, field, scale) in CURVES.items():
        yield from _metric(f"sweep_{name}", f"{meaning}, in each step of a sweep", [
            ({**labels, by: f"{point.step:g}"}, value * scale)
            for labels, by, curve in curves
            for point in curve.points if (value := getattr(point, field)) is not None
        ])  # fmt: skip
    for name, meaning in COSTS.items():
        yield from _metric(f"sweep_cost_{name}", f"{meaning}, in each step of a sweep", [
            ({**labels, by: f"{point.step:g}", "currency": point.cost.currency}, value)
            for labels, by, curve in curves
            for point in curve.points if point.cost and (value := getattr(point.cost, name)) is not None
        ])  # fmt: skip
    yield from _metric("sweep_goodput_share", "queries that met all limits, in each step of a sweep", [
        ({**labels, by: f"{point.step:g}"}, point.goodput.share)
        for labels, by, curve in curves for point in curve.points if point.goodput
    ])  # fmt: skip
    yield from _metric("sweep_knee", "the load from which on queries wait for each other", [
        ({**labels, "by": by}, curve.knee) for labels, by, curve in curves if curve.knee is not None
    ])  # fmt: skip


def _alone(rows: Iterable[tuple[Labels, NodeRow]]) -> Iterator[str]:
    """Yield what nodes measured alone; nothing where none did."""
    pairs = [(labels, one) for labels, row in rows for one in row.solo]
    values = [(one.metric, labels, one.alone) for labels, one in pairs]
    yield from _by_unit("alone_", "while no other node measured", values)
    yield from _metric("together_change_ratio", "what measuring together changes: together / alone - 1", [
        ({**labels, "metric": one.metric}, one.change) for labels, one in pairs
    ])  # fmt: skip


def _by_unit(prefix: str, meaning: str, values: Iterable[tuple[str, Labels, float]]) -> Iterator[str]:
    """Yield a metric for each unit, of values by their path: rates as they are, times in seconds with the statistic."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    times = {field: name for name, (field, _) in TIMES.items()}
    for path, labels, value in values:
        if path in RATES:
            found.setdefault(RATES[path], []).append((labels, value))
        else:
            field, _, statistic = path.partition(".")
            found.setdefault(times[field], []).append(({**labels, "statistic": statistic}, value / 1000))
    for name, each in found.items():
        yield from _metric(f"{prefix}{name}", f"{name.replace('_', ' ')} {meaning}", each)


def _metric(name: str, meaning: str, values: list[tuple[Labels, float]]) -> Iterator[str]:
    if not values:
        return
    yield f"# HELP {PREFIX}{name} {meaning}\n"
    yield f"# TYPE {PREFIX}{name} gauge\n"
    for labels, value in values:
        yield f"{PREFIX}{name}{_in_braces(labels)} {_number(value)}\n"


def _in_braces(labels: Mapping[str, str]) -> str:
    each = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{each}}}" if each else ""


def _escape(value: str) -> str:
    return clean(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 2**53 else repr(value)


def _unix_s(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
