"""`python3 -m benchmark baseline`: which runs later ones are held against."""

from __future__ import annotations

import argparse

from benchmark.cluster.baseline import DEFAULT, clear_baseline, read_baselines, set_baseline
from benchmark.commands import where
from benchmark.errors import EXIT_VALID, InputError
from benchmark.text import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `baseline`."""
    parser.add_argument("action", choices=("set", "show", "clear"))
    parser.add_argument("run", nargs="?", metavar="RUN", help=f"for set: {where.RUN}")
    parser.add_argument("--name", default=DEFAULT, help="several may be kept side by side")
    where.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Set, show or clear; return 0. Raises InputError."""
    name = arguments.name
    if (arguments.action == "set") != (arguments.run is not None):
        raise InputError("baseline set takes a run; show and clear take none.")
    if arguments.action == "set":
        for one in set_baseline(where.run_dir(arguments, arguments.run), name):
            print(f"{name}: {one.run_id} for {clean(one.label)}")
    elif arguments.action == "clear":
        print(f"{name}: {clear_baseline(where.results_dir(arguments), name)} cleared")
    else:
        known = read_baselines(where.results_dir(arguments)).names
        for each, baselines in sorted(known.items()):
            for one in baselines.values():
                print(f"{clean(each)}: {clean(one.run_id)} for {clean(one.label)}, set {clean(one.set_at)}")
        if not any(known.values()):
            print("There is no baseline: python3 -m benchmark baseline set <run id>")
    return EXIT_VALID
