"""`python3 -m benchmark baseline`: which runs later ones are held against."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.cluster.baseline import DEFAULT, clear_baseline, read_baselines, set_baseline
from benchmark.errors import EXIT_VALID, InputError
from benchmark.text import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `baseline`."""
    parser.add_argument("action", choices=("set", "show", "clear"))
    parser.add_argument("run", nargs="?", metavar="RUN", help="for set: a run id, latest, or results/<run id>")
    parser.add_argument("--name", default=DEFAULT, help="several may be kept side by side")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where runs are kept")


def main(arguments: argparse.Namespace) -> int:
    """Set, show or clear; return 0. Raises InputError."""
    results, name = arguments.results, arguments.name
    if (arguments.action == "set") != (arguments.run is not None):
        raise InputError("baseline set takes a run; show and clear take none.")
    if arguments.action == "set":
        for one in set_baseline(results, arguments.run, name):
            print(f"{name}: {one.run_id} for {clean(one.label)}")
    elif arguments.action == "clear":
        print(f"{name}: {clear_baseline(results, name)} cleared")
    else:
        known = read_baselines(results).names
        for each, baselines in sorted(known.items()):
            for one in baselines.values():
                print(f"{clean(each)}: {clean(one.run_id)} for {clean(one.label)}, set {clean(one.set_at)}")
        if not any(known.values()):
            print("There is no baseline: python3 -m benchmark baseline set <run id>")
    return EXIT_VALID
