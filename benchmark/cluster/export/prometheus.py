"""A run's nodes in Prometheus' text format, for the node exporter's textfile collector.

Names end with their unit, in base units (seconds, joules, watts); every metric is a gauge: it is what one run measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from benchmark.cluster.aggregate import Gathered
from benchmark.records import Distribution, Energy, Metrics, NodeRow
from benchmark.text import clean

PREFIX = "llm_benchmark_"
# Labels of a time's gauge: quantiles by Prometheus' own name, the rest by statistic.
STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "max")

Value = Callable[[NodeRow], float | None]


def _of(read: Callable[[Metrics], float | None]) -> Value:
    return lambda row: read(row.metrics) if row.metrics else None


def _energy(read: Callable[[Energy], float | None]) -> Value:
    return lambda row: read(row.energy) if row.energy else None


def _maybe(count: int | None) -> float | None:
    return None if count is None else float(count)


GAUGES: dict[str, tuple[str, Value]] = {
    "node_counted": ("1 where the node's numbers are part of the totals", lambda row: float(row.counted)),
    "node_valid": ("1 where the node's verdict is valid", lambda row: float(bool(row.verdict and row.verdict.valid))),
    "gpus": ("GPUs that answered", lambda row: float(row.gpus)),
    "duration_seconds": ("last completion minus first issue", _of(lambda m: m.duration_s)),
    "queries_per_second": ("completed queries per second", _of(lambda m: m.qps)),
    "output_tokens_per_second": ("output tokens per second", _of(lambda m: m.tokens_per_s)),
    "output_tokens": ("output tokens of completed queries", _of(lambda m: float(m.output_tokens))),
    "cached_prompt_tokens": (
        "prompt tokens from servers' caches; no value: not reported",
        lambda row: _maybe(row.prefix_cache.cached_tokens) if row.prefix_cache else None,
    ),
    "energy_joules": ("by the GPUs' own counters, in the measuring window", _energy(lambda e: e.joules)),
    "idle_watts": ("mean power of the GPUs before the window, model loaded", _energy(lambda e: e.idle_w)),
    "output_tokens_per_joule": ("output tokens per joule", _energy(lambda e: e.tokens_per_joule)),
    "query_energy_joules": ("joules per completed query", _energy(lambda e: e.joules_per_query)),
}
RATES = {"qps": "queries_per_second", "tokens_per_s": "output_tokens_per_second"}
TIMES = {
    "latency_seconds": ("latency_ms", "completed minus scheduled"),
    "ttft_seconds": ("ttft_ms", "first token minus scheduled"),
    "tpot_seconds": ("tpot_ms", "time per output token after the first"),
}


def prometheus_lines(gathered: Gathered) -> Iterator[str]:
    """Yield the lines of the text format; labels are escaped, undefined values left out."""
    run, rows = gathered.run, gathered.result.nodes
    about = {"run_id": run.run_id, "profile": gathered.result.profile}
    yield from _metric("run_info", "which run these values are of", [(about, 1.0)])
    created = _unix_s(run.created_at)
    if created is not None:
        yield from _metric("run_created_timestamp_seconds", "when the run was opened", [({}, created)])
    valid = float(gathered.result.verdict.valid)
    yield from _metric("run_valid", "1 where the cluster's verdict is valid", [({}, valid)])
    for name, (meaning, read) in GAUGES.items():
        yield from _metric(name, meaning, [(_labels(row), value) for row in rows if (value := read(row)) is not None])
    yield from _metric("queries", "queries of the run by what became of them", [
        ({**_labels(row), "state": state}, float(count))
        for row in rows if row.metrics
        for state, count in row.metrics.queries.model_dump().items()
    ])  # fmt: skip
    for name, (field, meaning) in TIMES.items():
        spreads = [(row, getattr(row.metrics, field)) for row in rows if row.metrics]
        yield from _metric(name, meaning, [one for row, spread in spreads if spread for one in _spread(row, spread)])
    yield from _repeats(gathered)
    yield from _alone(rows)
    yield from _metric("slow_node_change_ratio", "how far a slow node is from its peers: value / expected - 1", [
        ({"node": one.node, "metric": one.metric, "cause": one.cause or "none seen"}, one.change)
        for one in gathered.result.findings
    ])  # fmt: skip


def _repeats(gathered: Gathered) -> Iterator[str]:
    """Yield how far the repeats of the run differ; nothing where there is one."""
    reported, rows = gathered.result.repeats, gathered.result.nodes
    if reported is None:
        return
    yield from _metric("repeats", "measurements after one load", [({}, float(len(reported.rows)))])
    yield from _metric("repeat", "number of the one that all other values are of", [({}, float(reported.chosen))])
    spreads = [(row, one) for row in rows for one in row.spread]
    meaning = "over the repeats: median, lowest and highest"
    yield from _by_unit("repeats_", meaning, [
        (one.metric, {**_labels(row), "over": over}, getattr(one, over))
        for row, one in spreads for over in ("median", "lowest", "highest")
    ])  # fmt: skip
    for name, meaning, field in (
        ("repeats_variation_ratio", "coefficient of variation over the repeats", "cv"),
        ("repeats_stable", "1 where the repeats differ by so little that the value is stable", "stable"),
    ):
        values = [({**_labels(row), "metric": one.metric}, float(getattr(one, field))) for row, one in spreads]
        yield from _metric(name, meaning, values)


def _alone(rows: Iterable[NodeRow]) -> Iterator[str]:
    """Yield what nodes measured alone; nothing where none did."""
    pairs = [(row, one) for row in rows for one in row.solo]
    yield from _by_unit("alone_", "while no other node measured", [(p.metric, _labels(r), p.alone) for r, p in pairs])
    yield from _metric("together_change_ratio", "what measuring together changes: together / alone - 1", [
        ({**_labels(row), "metric": one.metric}, one.change) for row, one in pairs
    ])  # fmt: skip


def _by_unit(prefix: str, meaning: str, values: Iterable[tuple[str, dict[str, str], float]]) -> Iterator[str]:
    """Yield a metric for each unit, of values by their path: rates as they are, times in seconds with the statistic."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    times = {field: name for name, (field, _) in TIMES.items()}
    for path, labels, value in values:
        if path in RATES:
            found.setdefault(RATES[path], []).append((labels, value))
        else:
            field, _, statistic = path.partition(".")
            found.setdefault(times[field], []).append(({**labels, "statistic": statistic}, value / 1000))
    for name, each in found.items():
        yield from _metric(f"{prefix}{name}", f"{name.replace('_', ' ')} {meaning}", each)


def _labels(row: NodeRow) -> dict[str, str]:
    return {"node": row.node, "hardware": row.gpu or ""}


def _spread(row: NodeRow, spread: Distribution) -> Iterator[tuple[dict[str, str], float]]:
    for statistic in STATISTICS:
        yield {**_labels(row), "statistic": statistic}, getattr(spread, statistic) / 1000


def _metric(name: str, meaning: str, values: list[tuple[dict[str, str], float]]) -> Iterator[str]:
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
