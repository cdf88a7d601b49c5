"""`python3 -m benchmark baseline`: the runs that later runs are compared with."""

from __future__ import annotations

import argparse

from benchmark.cluster.baseline import DEFAULT, SHOWN, clear_baseline, read_baselines, set_baseline
from benchmark.commands import where
from benchmark.errors import EXIT_VALID, InputError
from benchmark.text.columns import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `baseline`."""
    parser.add_argument("action", choices=("set", "show", "clear"))
    parser.add_argument(
        "which",
        nargs="?",
        metavar="RUN",
        help=f"for set: {where.RUN}; for clear: the key or the run of a baseline (see show); default: all",
    )
    parser.add_argument("--name", default=DEFAULT, help="name of the baseline: several can exist side by side")
    where.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Set, show or clear; return 0. Raises InputError."""
    name = arguments.name
    if arguments.action == "set" and not arguments.which:
        raise InputError("baseline set takes a run.")
    if arguments.action == "show" and arguments.which:
        raise InputError("baseline show takes no run: it lists all.")
    if arguments.action == "set":
        for one in set_baseline(where.run_dir(arguments, arguments.which), name):
            print(f"{name}: {one.run_id} for {clean(one.label)}")
    elif arguments.action == "clear":
        gone = clear_baseline(where.results_dir(arguments), name, arguments.which or "")
        for one in gone:
            print(f"{name}: cleared {clean(one.run_id)} for {clean(one.label)}")
        if not gone:
            print(f"{name}: there is no such baseline")
    else:
        known = read_baselines(where.results_dir(arguments)).names
        for each, baselines in sorted(known.items()):
            for key, one in baselines.items():
                when = f"set {clean(one.set_at)}"
                print(f"{clean(each)}: {clean(one.run_id)} for {clean(one.label)}, {when}, key {clean(key)[:SHOWN]}")
        if not any(known.values()):
            print("There is no baseline: python3 -m benchmark baseline set <run id>")
    return EXIT_VALID
