"""The results directory and the run that a command uses: the same options and names for all commands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmark.cluster.inventory import CHECKOUT, DEFAULT, asked_results
from benchmark.cluster.stored.find import find_run, require_name, run_at
from benchmark.errors import InputError

RUN = "a run id or the beginning of one, latest, or a run's directory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for the results directory."""
    parser.add_argument(
        "--results-dir", type=Path, metavar="DIR", help="the directory of all runs; default: the inventory's setting"
    )
    parser.add_argument(
        "-i",
        "--inventory",
        action="append",
        metavar="PATH",
        help="the inventory with that setting; default: that of ansible.cfg",
    )


def results_dir(arguments: argparse.Namespace) -> Path:
    """Return the results directory, and report it on standard error if it is not the default. Raises InputError."""
    if arguments.results_dir is None:
        arguments.results_dir, why = asked_results(arguments.inventory or ())
        if arguments.results_dir not in (CHECKOUT / DEFAULT, Path(DEFAULT).absolute()):
            print(f"Runs are read from {arguments.results_dir} ({why}).", file=sys.stderr)
    found: Path = arguments.results_dir
    return found


def run_dir(arguments: argparse.Namespace, name: str) -> Path:
    """Return the directory of a run; the inventory is only read if the name is not a path. Raises InputError."""
    if found := run_at(name):
        return found
    require_name(name)
    return find_run(results_dir(arguments), name)


def run_or_node(arguments: argparse.Namespace, name: str) -> tuple[Path, str]:
    """Return the run's directory and, for RUN/NODE, the node. Raises InputError."""
    head, _, node = name.rstrip("/").rpartition("/")
    for path, rest in ((name, ""), (head, node)):
        if found := run_at(path):
            return found, rest
    require_name(name)
    results = results_dir(arguments)
    try:
        return find_run(results, name), ""
    except InputError:
        if not head:
            raise
    return find_run(results, head), node
