"""Goodput in words: how many users a node serves at once, and how well, for readers who do not know percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmark.cluster.goodput_sum import together
from benchmark.cluster.names import some
from benchmark.records import Curve, Curves, Goodput, Group, NodeRow, Slo
from benchmark.records.goodput import NEEDED, SERVED
from benchmark.text.figures import figure
from benchmark.words import plural

BASIS = "users at once: answers in progress for at least half of the measured time"


def goodput_words(one: Goodput) -> str:
    """Return the share of queries and the tokens per second within the limits, and the limits."""
    return (
        f"{share_words(one.share)} of {plural(one.queries, 'query', 'queries')}, {figure(one.tokens_per_s)} tokens/s, "
        f"within {slo_words(one.slo)}"
    )


def slo_words(slo: Slo) -> str:
    """Return the limits as metrics: "TTFT 500 ms and TPOT 30 ms"."""
    limits = [(name, limit) for name, limit in (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms)) if limit is not None]
    return " and ".join(f"{name} {limit:g} ms" for name, limit in limits)


def share_words(share: float) -> str:
    """Return a share in percent, never rounded up: 98.96 % is not 99 %."""
    return f"{math.floor(share * 1000 + 1e-9) / 10:g} %"


def serves(group: Group, rows: Sequence[NodeRow], sweep: Curves | None = None) -> str:
    """Return a sentence on how many users like nodes serve at once, with its basis; empty without goodput.

    It claims only what was measured: it is about all nodes only if it holds for each. For a sweep, it is about the
    highest load at which it holds.
    """
    nodes = {row.node: row.goodput for row in rows if row.node in set(group.nodes) and row.goodput}
    if sweep is not None:
        curves = [curve for curve in sweep.curves if curve.kind == "node" and curve.of in set(group.nodes)]
        nodes = {curve.of: best for curve in curves if (best := highest_served(curve))}
    of_all = together(list(nodes.values()))
    if group.goodput is None or of_all is None:
        return ""
    if len(nodes) == 1:
        return sentence(of_all)
    if all(one.served for one in nodes.values()):
        users = [one.users or 0 for one in nodes.values()]
        each = f"{min(users)}" if min(users) == max(users) else f"{min(users)} to {max(users)}"
        return _claim(f"These {len(nodes)} nodes serve", of_all, f" ({each} each)")
    good = [name for name, one in nodes.items() if one.served]
    worst = min(nodes, key=lambda name: nodes[name].share)
    some_do = f"{len(good)} of {len(nodes)} nodes serve their users within the limits ({some(good)}). " if good else ""
    return f"{some_do}{sentence(nodes[worst], worst)}"


def highest_served(curve: Curve) -> Goodput | None:
    """Return the goodput of the highest load at which users are served, or else of the best load."""
    known = [point.goodput for point in curve.points if point.goodput]
    kept = [one for one in known if one.share >= SERVED and one.users]
    served = [one for one in kept if one.served]
    best = served or kept or known[:1]
    return best[-1] if best else None


def sentence(one: Goodput, who: str = "This node") -> str:
    """Return how many users one node serves at once, or what was measured instead."""
    if one.served:
        return _claim(f"{who} serves", one)
    met = f"{one.met:,} of {one.queries:,} answers met the limits ({_promise(one.slo)})"
    if not one.users:
        idle = "" if one.in_flight is None else f" ({figure(one.in_flight)} answers in progress on average)"
        return f"{who} had less than one user at a time{idle}: {met}."
    at_once = plural(one.users, "user")
    if one.share < SERVED:
        return f"{who} does not serve {at_once} at once: only {met}, {share_words(one.share)}; {BASIS}."
    return f"{who} had {at_once} at once: {met}. A claim about {100 * SERVED:g} % takes {NEEDED} answers; {BASIS}."


def _claim(serve: str, one: Goodput, more: str = "") -> str:
    count = plural(one.users or 0, "user")
    return (
        f"{serve} {count} at once{more}: {_promise(one.slo)}, for {100 * SERVED:g} % of answers. Measured: "
        f"{share_words(one.share)} of {one.queries:,}; {BASIS}."
    )


def _promise(slo: Slo) -> str:
    """Return the limits as what a user gets: "first token under 0.5 s and at least 20 tokens/s each"."""
    first = [] if slo.ttft_ms is None else [f"first token under {slo.ttft_ms / 1000:g} s"]
    rest = [] if slo.tpot_ms is None else [f"at least {_rate(1000 / slo.tpot_ms)} tokens/s each"]
    return " and ".join([*first, *rest])


def _rate(tokens_per_s: float) -> str:
    """Return a rate with three digits, never rounded up."""
    digits = max(0, 2 - math.floor(math.log10(tokens_per_s)))
    return f"{math.floor(tokens_per_s * 10**digits + 1e-9) / 10**digits:g}"
