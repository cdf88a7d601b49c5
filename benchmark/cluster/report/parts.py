"""The parts of the page: tables, charts with their tables, and the groups of like nodes that they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from benchmark.cluster.report.amounts import median
from benchmark.cluster.results.load import LoadedNode
from benchmark.errors import InputError
from benchmark.loadgen_log import read_limits
from benchmark.probed import figures
from benchmark.records import ClusterResult, Finding, Group, NodeRow
from benchmark.rundir import NODES

# Up to this many nodes, each has its own colour; with more, only this many outliers do.
MOST_COLOURED = 6
MOST_OUTSTANDING = 4


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first cell of a row is its head."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """A figure in one or two widths, and the same values as tables. `title`: empty if the section's heading says it."""

    title: str
    note: str
    wide: Markup
    narrow: Markup | None
    tables: Sequence[Table]


@dataclass(frozen=True)
class Mark:
    """How a node's lines are drawn: the numbers of its colour and of its dash pattern."""

    colour: int
    dashes: int


@dataclass(frozen=True)
class NodeGroup:
    """A group with its nodes, best first. `marked`: the nodes with their own colour."""

    number: int
    group: Group
    nodes: tuple[LoadedNode, ...]
    rows: Mapping[str, NodeRow]
    findings: Mapping[str, tuple[Finding, ...]]
    marked: Mapping[str, Mark]
    ranked_by: str
    """"qps" or "ttft_ms.p99": in a Server run the load generator decides the queries per second."""
    limits: Mapping[str, tuple[tuple[str, float], ...]]
    """Distribution -> (percentile, limit in ms) of the verdict."""

    @property
    def queries(self) -> bool:
        """Whether queries were measured (or nothing); False where only the hardware was probed."""
        return any(row.metrics or not row.probes for row in self.rows.values())

    @property
    def crowd(self) -> tuple[LoadedNode, ...]:
        """The nodes without a colour of their own, which are shown together."""
        return tuple(node for node in self.nodes if node.node not in self.marked)

    @cached_property
    def median_qps(self) -> float | None:
        """The median QPS of the group's nodes."""
        return median(n.metrics.qps for n in self.nodes if n.metrics and n.metrics.qps is not None)


def node_groups(run_dir: Path, result: ClusterResult, nodes: Sequence[LoadedNode]) -> list[NodeGroup]:
    """Return the result's groups with their nodes."""
    by_name = {node.node: node for node in nodes}
    rows = {row.node: row for row in result.nodes}
    findings: dict[str, tuple[Finding, ...]] = {}
    for finding in result.findings:
        findings[finding.node] = (*findings.get(finding.node, ()), finding)
    return [
        _like(run_dir, number, group, [by_name[name] for name in group.nodes], rows, findings)
        for number, group in enumerate(result.groups, start=1)
    ]


def _like(
    run_dir: Path,
    number: int,
    group: Group,
    nodes: Sequence[LoadedNode],
    rows: Mapping[str, NodeRow],
    findings: Mapping[str, tuple[Finding, ...]],
) -> NodeGroup:
    server = all(node.result and node.result.loadgen and node.result.loadgen.scenario == "Server" for node in nodes)
    scheduled = all(node.result and node.result.resolved.profile.scheduled for node in nodes)
    names = [node.node for node in nodes]
    outstanding = [name for name in findings if name in names]
    if group.worst_p99_node is not None and len(nodes) > MOST_COLOURED and group.worst_p99_node not in outstanding:
        outstanding.append(group.worst_p99_node)
    if not any(node.metrics for node in nodes):
        outstanding += [name for name in names if name not in outstanding and _has_gpu_off(rows[name])]
    marked = names if len(nodes) <= MOST_COLOURED else outstanding[:MOST_OUTSTANDING]
    return NodeGroup(
        number=number,
        group=group,
        nodes=tuple(sorted(nodes, key=lambda node: _rank(node, scheduled))),
        rows={name: rows[name] for name in names},
        findings={name: findings[name] for name in names if name in findings},
        # The first colour is a quiet one: if only a few nodes are marked, they get the others.
        marked={name: Mark(at if marked is names else at + 1, at) for at, name in enumerate(marked)},
        ranked_by="ttft_ms.p99" if scheduled else "qps",
        limits=_limits(run_dir, nodes[0], server),
    )


def _has_gpu_off(row: NodeRow) -> bool:
    return any(one.off is not None for one in figures(row.probes).values())


def _rank(node: LoadedNode, by_ttft: bool) -> float:
    """Return the sort key: best node first, nodes without a value last."""
    metrics = node.metrics
    if by_ttft:
        return metrics.ttft_ms.p99 if metrics and metrics.ttft_ms else float("inf")
    return -metrics.qps if metrics and metrics.qps is not None else float("inf")


def _limits(run_dir: Path, node: LoadedNode, server: bool) -> dict[str, tuple[tuple[str, float], ...]]:
    """Return the limits of distributions: the profile's, and those of LoadGen's verdict."""
    found: dict[str, list[tuple[str, float]]] = {}
    profile = node.result.resolved.profile if node.result else None
    for limit in profile.limits if profile else ():
        head, _, tail = limit.metric.rpartition(".")
        if head and limit.at_most is not None:
            found.setdefault(head, []).append((tail, limit.at_most))
    if server:
        try:
            official = read_limits(run_dir / NODES / node.directory)
        except InputError:
            official = {}  # the log was checked when the node was loaded; without it the chart only lacks a line
        for metric, limit_ms in official.items():
            found.setdefault(metric, []).append(("p99", limit_ms))
    return {metric: tuple(pairs) for metric, pairs in found.items()}
