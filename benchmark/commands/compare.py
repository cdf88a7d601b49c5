"""`python3 -m benchmark compare`: what became better or worse between runs, with an exit code for CI."""

from __future__ import annotations

import argparse

from benchmark.cluster.baseline import DEFAULT, baseline_of, own_baseline
from benchmark.cluster.comparison import FLOOR, compare
from benchmark.cluster.comparison.show import render_markdown, render_text
from benchmark.cluster.comparison.side import load_side
from benchmark.commands import where
from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError
from benchmark.records import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.epilog = (
        f"A run is {where.RUN}; RUN/NODE is one node of it. Exit codes: 0 nothing is worse; "
        "1 something is worse; 2 not compared: settings or hardware differ, or there is no such run."
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="before and after; a single run is compared with its baseline"
    )
    where.add_arguments(parser)
    parser.add_argument("--baseline", default=DEFAULT, metavar="NAME", help="which baseline, for a single run")
    parser.add_argument(
        "--floor", type=float, default=100 * FLOOR, metavar="PERCENT", help="ignore smaller changes; default 2"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a record instead of text")
    form.add_argument("--markdown", action="store_true", help="print Markdown instead of text")


def main(arguments: argparse.Namespace) -> int:
    """Print the comparison; return 0, 1 or 2. Raises InputError."""
    if len(arguments.runs) > 2:
        raise InputError("compare takes two runs, or one and its baseline.")
    if not 0 <= arguments.floor < 100:
        raise InputError("--floor is a percentage from 0 to below 100.")
    run_dir, node = where.run_or_node(arguments, arguments.runs[-1])
    after, own, same = load_side(run_dir, node), tuple[str, ...](), False
    if len(arguments.runs) == 2:
        first = where.run_or_node(arguments, arguments.runs[0])
        before, same = load_side(*first), (first[0].resolve(), first[1]) == (run_dir.resolve(), node)
    else:
        baseline = baseline_of(run_dir.parent, after, arguments.baseline)
        if baseline is None:
            raise InputError(
                f"There is no baseline {arguments.baseline!r} with the settings and hardware of {after.name}: set one "
                "with python3 -m benchmark baseline set <run id>, or name two runs."
            )
        before, own = baseline, own_baseline(run_dir.parent, after, arguments.baseline)
    comparison = compare(before, after, arguments.floor / 100).model_copy(update={"own_baseline": own, "same": same})
    if arguments.json:
        print(comparison.model_dump_json(indent=2))
    else:
        print((render_markdown if arguments.markdown else render_text)(comparison), end="")
    return exit_code(comparison)


def exit_code(comparison: Comparison) -> int:
    """Return 1 if something is worse, 2 if a group was not compared, else 0."""
    if comparison.outcome == "worse":
        return EXIT_INVALID
    if comparison.refused or comparison.apart or not comparison.groups:
        return InputError.exit_code
    return EXIT_VALID
