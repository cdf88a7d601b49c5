"""The page's tables: nodes, checks, differences, energy and cost, GPUs, settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.cluster.names import members_words, natural, some
from benchmark.cluster.render.stability import MARK
from benchmark.cluster.report.amounts import amount, share
from benchmark.cluster.report.parts import NodeGroup, Table
from benchmark.cluster.results.load import LoadedNode
from benchmark.cluster.system_result import CLUSTER, share_words
from benchmark.code import code_words
from benchmark.records import Check, ClusterResult, Cost, Group, NodeRow, RunRecord
from benchmark.served import ENDPOINT, server_version
from benchmark.settings import Settings
from benchmark.text.descriptions import STARTUP_STAGES, check_words, startup_seconds
from benchmark.verdict import label, unit
from benchmark.words import plural, shown

# With more rows a table is folded.
MOST_ROWS = 24
# Settings of what the run loads. They have no effect on a server that was already running.
NOT_THE_SERVERS = ("benchmark_model_revision", "benchmark_dtype")
UNUSED = " (no effect: the engine is endpoint)"
# Most values that a table cell lists; the rest are only counted.
MAX_NAMED = 6


def node_cells(like: NodeGroup, row: NodeRow, place: int) -> dict[str, Any]:
    """Return a node's row of the table."""
    metrics, middle = row.metrics, like.median_qps
    qps = metrics.qps if metrics else None
    times = {name: getattr(metrics, name) if metrics else None for name in ("latency_ms", "ttft_ms", "tpot_ms")}

    unsteady = {one.metric for one in row.spread if not one.stable}

    def wave(metric: str) -> str:
        return MARK if metric in unsteady else ""

    def at(name: str, part: str) -> str:
        spread = times[name]
        star = "*" if spread is not None and part in spread.insufficient else ""
        return amount(None if spread is None else getattr(spread, part)) + star + wave(f"{name}.{part}")

    return {
        "place": place,
        "node": row.node,
        "members": members_words(row.members),
        "marked": len(like.marked) < len(like.nodes) and row.node in like.marked,
        "qps": amount(qps) + wave("qps"),
        "change": share(qps / middle - 1) if qps is not None and middle else "-",
        "tokens": amount(metrics.tokens_per_s if metrics else None) + wave("tokens_per_s"),
        "p50": at("latency_ms", "p50"),
        "p99": at("latency_ms", "p99"),
        "ttft": at("ttft_ms", "p99"),
        "tpot": at("tpot_ms", "p50"),
        "share": share_words(row) if row.served else "",
        "valid": bool(row.verdict and row.verdict.valid),
        "slow": like.findings.get(row.node, ()),
    }


def checks(result: ClusterResult) -> list[tuple[str, str, str, str]]:
    """Return, for each check of the nodes' verdicts: what, how many passed, the worst value and its node.

    For a system, the verdict of the whole system counts.
    """
    seen: dict[tuple[str, str], list[tuple[str, Check]]] = {}
    of_nodes = [(row.node, row.verdict) for row in result.nodes]
    for name, verdict in [(CLUSTER, result.verdict)] if result.system else of_nodes:
        for check in verdict.checks if verdict else ():
            seen.setdefault((check.metric, check.comparison), []).append((name, check))
    lines = []
    for (metric, comparison), reported in seen.items():
        passed = sum(check.passed for _, check in reported)
        node, worst = max(reported, key=lambda pair: _badness(pair[1]))
        limits = {check.limit for _, check in reported}
        suffix = unit(metric)
        words = f"{label(metric)} {comparison.replace('_', ' ')}"
        bound = shown(worst.limit, worst.value) + suffix if len(limits) == 1 else "each node's own limit"
        what = metric if comparison == "holds" else f"{words} {bound}"
        value = "undefined" if worst.value is None else shown(worst.value, worst.limit) + suffix
        value = ("yes" if worst.passed else "no") if comparison == "holds" else value
        lines.append((what, f"{passed} of {len(reported)}", value, node if len(reported) > 1 else ""))
    return lines


def _badness(check: Check) -> tuple[bool, float]:
    if check.value is None:
        return not check.passed, math.inf
    ahead = check.value - check.limit
    return not check.passed, ahead if check.comparison == "at_most" else -ahead


def failed_checks(row: NodeRow) -> list[str]:
    """Return the checks that a node failed, in words."""
    return [check_words(check)[1] for check in row.verdict.checks if not check.passed] if row.verdict else []


@dataclass(frozen=True)
class Consumption:
    """Energy and cost per node and in all; `of`: how many of how many nodes have an energy counter."""

    each: Table
    total: Table | None
    of: str
    priced: bool
    folded: bool


_ENERGY = ("joules", "tokens per joule", "joules per query")


def consumption(rows: Sequence[NodeRow], groups: Sequence[Group]) -> Consumption | None:
    """Return the counted nodes' energy while measuring, and its cost; None without a counter or a price.

    A column that is empty for all nodes is left out.
    """
    rows = [row for row in rows if row.counted]
    metered, priced = [row for row in rows if row.energy], [row for row in rows if row.cost]
    if not metered and not priced:
        return None
    heads = ["joules", "mean W", "idle W", "tokens per joule", "joules per query"] if metered else []
    each = [(row.node, *(_joules(row) if metered else ()), *(_cost(row.cost) if priced else ())) for row in rows
            if row.energy or row.cost]  # fmt: skip
    used = any(group.energy_joules is not None for group in groups)
    totals = [
        (
            f"{group.label}: {plural(len(group.nodes), 'node')}"
            + (f", energy of {group.energy_nodes}" if group.energy_nodes < len(group.nodes) and metered else ""),
            *(map(amount, (group.energy_joules, group.tokens_per_joule, group.joules_per_query)) if used else ()),
            *(_cost(group.cost) if priced else ()),
        )
        for group in groups
        if len(group.nodes) > 1 and (group.energy_joules is not None or group.cost)
    ]
    cost_heads = ["price per hour", "per million output tokens", "per million input tokens"] if priced else []
    title = " and ".join([*(["Energy"] if metered else []), *(["cost"] if priced else [])]).capitalize()
    total = Table("Together", ["group", *(_ENERGY if used else ()), *cost_heads], totals) if totals else None
    table = Table(f"{title} in the measuring window", ["node", *heads, *cost_heads], each)
    of = f"{len(metered)} of {len(rows)}" if metered else ""
    return Consumption(table, total, of, bool(priced), len(each) > MOST_ROWS)


def _joules(row: NodeRow) -> tuple[str, ...]:
    e = row.energy
    if e is None:
        return ("-",) * 5
    mean_w = e.joules / e.window_s if e.window_s else None
    return tuple(map(amount, (e.joules, mean_w, e.idle_w, e.tokens_per_joule, e.joules_per_query)))


def _cost(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ("-",) * 3
    values = (cost.per_hour, cost.per_million_output_tokens, cost.per_million_input_tokens)
    return tuple("-" if value is None else f"{cost.currency} {amount(value)}" for value in values)


def gpus(nodes: Iterable[LoadedNode]) -> Table | None:
    """Return what the GPUs did while measuring; None if nothing was monitored."""
    rows = []
    for node in nodes:
        for gpu in node.result.telemetry.gpus if node.result and node.result.telemetry else ():
            held = ", ".join(f"{reason.replace('_', ' ')} {part:.0%}" for reason, part in gpu.throttled.items()) or "no"
            faults = [f"{gpu.ecc_uncorrected} uncorrected ECC errors"] if gpu.ecc_uncorrected else []
            faults += [f"{gpu.ecc_corrected} corrected ECC errors"] if gpu.ecc_corrected else []
            faults += [f"XID {', '.join(map(str, gpu.xid))}"] if gpu.xid else []
            clock = f"{amount(gpu.sm_clock_mhz)} ({amount(gpu.sm_clock_mhz_min)})"
            power = f"{amount(gpu.power_w)} ({amount(gpu.power_w_max)})"
            pcie = "-" if gpu.pcie_generation is None else f"{gpu.pcie_generation} x{gpu.pcie_width}"
            cells = (amount(gpu.utilisation_percent), clock, power, amount(gpu.temperature_c_max), pcie, held)
            rows.append((node.node, str(gpu.index), *cells, ", ".join(faults) or "none"))
    heads = ("node", "GPU", "busy %", "MHz mean (lowest)", "W mean (highest)", "\N{DEGREE SIGN}C highest")
    return Table("GPUs while measuring", (*heads, "PCIe", "clock throttled", "errors"), rows) if rows else None


def starts(nodes: Iterable[LoadedNode]) -> Table | None:
    """Return how long the engines took to start, by stage; None if none reports it."""
    reported = {
        node.node: startup_seconds(node.result.engine.details) for node in nodes if node.result and node.result.engine
    }
    stages = [stage for stage in STARTUP_STAGES if any(stage in seconds for seconds in reported.values())]
    if not stages:
        return None
    rows = [(node, *(amount(seconds.get(stage)) for stage in stages)) for node, seconds in reported.items() if seconds]
    return Table("Start of the engine, seconds", ("node", *(stage.replace("_", " ") for stage in stages)), rows)


def notes_of_watching(nodes: Iterable[LoadedNode]) -> list[str]:
    """Return what could not be monitored, and on which nodes."""
    reported: dict[str, list[str]] = {}
    for node in nodes:
        if node.result and node.result.telemetry and node.result.telemetry.note:
            reported.setdefault(node.result.telemetry.note, []).append(node.node)
    return [f"{some(names)}: {note}" for note, names in reported.items()]


def settings(run: RunRecord) -> tuple[Table, Table]:
    """Return the settings that differ from the defaults or between nodes, and all settings."""
    defaults = Settings.model_validate({})
    rows, changed = [], []
    for name in Settings.model_fields:
        given = {node: getattr(asked.settings, name) for node, asked in run.nodes.items()}
        values: dict[str, list[str]] = {}
        for node, value in given.items():
            unused = name in NOT_THE_SERVERS and run.nodes[node].profile.engine == ENDPOINT
            values.setdefault(_word(value) + (UNUSED if unused else ""), []).append(node)
        row = (name, _values(values))
        rows.append(row)
        if any(value != getattr(defaults, name) for value in given.values()):
            changed.append(row)
    heads = ("setting", "value")
    return Table("Settings that differ from their defaults", heads, changed), Table("All settings", heads, rows)


def software(run: RunRecord, nodes: Sequence[LoadedNode]) -> Table:
    """Return what ran: the controller's versions, then the nodes' hardware, drivers and packages."""
    rows = [(f"controller: {name}", version) for name, version in run.versions.items()]
    facts: dict[str, dict[str, list[str]]] = {}

    def tell(fact: str, value: object, node: str) -> None:
        if value not in (None, ""):
            facts.setdefault(fact, {}).setdefault(str(value), []).append(node)

    for node in nodes:
        tell("server version", server_version(node.result.engine) if node.result else None, node.node)
        seen = node.result.environment if node.result else None
        if seen is None:
            continue
        tell("CPU", f"{seen.cpu} ({seen.cpu_count} CPUs)", node.node)
        for gpu in sorted({gpu.name for gpu in seen.gpus}):
            tell("GPU", f"{sum(g.name == gpu for g in seen.gpus)} x {gpu}", node.node)
        for fact in ("driver", "cuda", "kernel", "platform", "python"):
            tell(fact, getattr(seen, fact), node.node)
        tell("the benchmark's code", code_words(seen.code), node.node)
        for package, version in seen.packages.items():
            tell(package, version, node.node)
        for package, version in seen.server_packages.items():
            tell(f"{package} (the server's environment)", version, node.node)
    rows += [(fact, _values(values)) for fact, values in facts.items()]
    return Table("Hardware and software", ("what", "value"), rows)


def _values(values: Mapping[str, Sequence[str]]) -> str:
    """Return the one value, or each value with its nodes."""
    if len(values) == 1:
        return next(iter(values))
    ordered = sorted(values.items(), key=lambda item: (-len(item[1]), natural(item[0])))
    words = [f"{value} [{some(nodes)}]" for value, nodes in ordered[:MAX_NAMED]]
    return "; ".join(words) + (f"; and {len(ordered) - MAX_NAMED} more" if len(ordered) > MAX_NAMED else "")


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return str(value) if value else "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "empty"
