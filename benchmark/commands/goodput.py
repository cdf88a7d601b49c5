"""`python3 -m benchmark goodput`: what was answered within limits of TTFT and TPOT, and for how many users at once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from pydantic import ValidationError

from benchmark import DISCLAIMER
from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.goodput import goodput_words, highest_served, sentence, serves
from benchmark.cluster.render.curve_table import at_step
from benchmark.cluster.stored.short import not_hardware
from benchmark.commands import where
from benchmark.errors import EXIT_VALID, InputError
from benchmark.records import Curve, Curves, Goodput, Slo
from benchmark.text.columns import entry, wrap

EXAMPLE = "--slo ttft=500 tpot=30, in milliseconds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `goodput`."""
    parser.add_argument("run", metavar="RUN", help=where.RUN)
    parser.add_argument(
        "--slo",
        nargs="+",
        metavar="LIMIT",
        help="ttft=MS and tpot=MS, or one of them: the limits of the time to the first token and of the time per token "
        "after it, in milliseconds; default: the limits of the run's own profile",
    )
    where.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a record instead of text")


def main(arguments: argparse.Namespace) -> int:
    """Print the goodput of every node and of like nodes together; return 0. Raises InputError."""
    slo = parse_slo(arguments.slo) if arguments.slo is not None else None
    gathered = gather(where.run_dir(arguments, arguments.run), slo)
    result = gathered.result
    if not any(row.goodput for row in result.nodes):
        raise InputError(_why_none(gathered, slo))
    if arguments.json:
        nodes = {row.node: row.goodput.model_dump() if row.goodput else None for row in result.nodes}
        groups = [
            {"label": group.label, "nodes": group.nodes, "goodput": group.goodput and group.goodput.model_dump()}
            | {"serves": serves(group, result.nodes, result.sweep)}
            for group in result.groups
        ]
        reported: dict[str, object] = {"run_id": result.run_id, "not_hardware": not_hardware(gathered.run, result)}
        reported |= {"nodes": nodes, "groups": groups}
        if result.sweep:
            # The goodput of nodes and of groups, by load.
            reported["steps"] = {
                curve.of: {f"{one.step:g}": one.goodput.model_dump() for one in curve.points if one.goodput}
                for curve in result.sweep.curves
            }
        print(json.dumps(reported, indent=2))
    else:
        print("\n".join(_lines(gathered)))
    return EXIT_VALID


def parse_slo(words: Sequence[str]) -> Slo:
    """Parse limits such as `ttft=500`. Raises InputError."""
    found: dict[str, str] = {}
    for word in words:
        name, given, value = word.partition("=")
        if name not in ("ttft", "tpot") or not given or f"{name}_ms" in found:
            raise InputError(f"--slo: {word!r} is not a limit, or is given twice: write {EXAMPLE}.")
        found[f"{name}_ms"] = value
    try:
        return Slo.model_validate(found)
    except ValidationError:
        raise InputError(f"--slo: limits are numbers above 0: write {EXAMPLE}.") from None


def _lines(gathered: Gathered) -> list[str]:
    result = gathered.result
    lines = [f"Goodput of {result.run_id} ({DISCLAIMER})"]
    if why := not_hardware(gathered.run, result):
        lines += ["", wrap(f"These figures say nothing about the hardware: {why}.", "*** ", "*** ")]
    for group in result.groups:
        members = [row for row in result.nodes if row.node in group.nodes]
        lines += ["", wrap(group.label), ""]
        users = serves(group, members, result.sweep)
        best = {row.node: _best(row.goodput, _curve(result.sweep, "node", row.node)) for row in members if row.goodput}
        beneath = bool(users) and all(one.served for one in best.values())
        beneath = beneath or len(members) == 1
        for row in members:
            words = "undefined: the token times of some answers are unknown, or there were no queries"
            if row.goodput:
                words = _words(row.goodput, result.sweep, _curve(result.sweep, "node", row.node))
                own = sentence(best[row.node], row.node)
                # The sentence about all nodes, or about a single one, is below.
                words += "" if beneath or own in users else f"\n{own}"
            lines.append(entry(row.node, words))
        if group.goodput:
            together = _words(group.goodput, result.sweep, _curve(result.sweep, "group", group.label[:200]))
            total = [entry("Together", together)] if len(members) > 1 else []
            lines += ["", *total, entry("Users", users)]
    return lines


def _curve(sweep: Curves | None, kind: str, of: str) -> Curve | None:
    return next((one for one in sweep.curves if (one.kind, one.of) == (kind, of)), None) if sweep else None


def _best(one: Goodput, curve: Curve | None) -> Goodput:
    return (highest_served(curve) if curve else None) or one


def _words(one: Goodput, sweep: Curves | None, curve: Curve | None) -> str:
    """Return what was answered within the limits; for a sweep, a line for each of its steps."""
    if sweep is None or curve is None:
        return goodput_words(one)
    steps = [(point.step, point.goodput) for point in curve.points if point.goodput]
    return "\n".join(f"{at_step(sweep, step)}: {goodput_words(each)}" for step, each in steps)


def _why_none(gathered: Gathered, slo: Slo | None) -> str:
    if not any(row.counted and row.metrics for row in gathered.result.nodes):
        return f"{gathered.result.run_id} has no node that measured queries and is counted."
    undefined = "its goodput is undefined: token times are unknown, or it had no queries."
    if slo is not None:
        return f"{gathered.result.run_id}: {undefined}"
    return (
        f"{gathered.result.run_id}: its profile has no limits of TTFT and TPOT, or {undefined} Give limits: {EXAMPLE}."
    )
