"""Goodput and users: what each node answered within the limits."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.cluster.goodput import highest_served, share_words, slo_words
from benchmark.cluster.report.amounts import amount
from benchmark.cluster.report.parts import Table
from benchmark.records import ClusterResult, Curves, Group


def goodput_tables(result: ClusterResult) -> list[Table]:
    """Return a table for each group whose nodes have limits of TTFT or TPOT."""
    return [table for group in result.groups if (table := _table(group, result))]


def users_tile(group: Group, which: str, sweep: Curves | None) -> list[tuple[str, str, str]]:
    """Return how many users one node serves at once; nothing if that was not measured, or there are several nodes."""
    good = group.goodput
    if sweep is not None:
        good = next((highest_served(one) for one in sweep.curves if one.kind == "node" and one.of in group.nodes), None)
    if good is None or len(group.nodes) != 1 or not good.served:
        return []
    return [(str(good.users), "users", f"at once within {slo_words(good.slo)}{which}")]


def _table(group: Group, result: ClusterResult) -> Table | None:
    known = [(row.node, row.goodput) for row in result.nodes if row.node in set(group.nodes) and row.goodput]
    if not known:
        return None
    limits = slo_words(known[0][1].slo)
    heads: Sequence[str] = (
        "node",
        "within",
        "of queries",
        "goodput QPS",
        "goodput tokens/s",
        "users at once",
        "mean in progress",
    )
    rows = [
        (
            node,
            share_words(one.share),
            f"{one.queries:,}",
            *map(amount, (one.qps, one.tokens_per_s)),
            "-" if one.users is None else f"{one.users:,}",
            amount(one.in_flight),
        )
        for node, one in known
    ]
    return Table(f"{group.label}: within {limits}", heads, rows)
