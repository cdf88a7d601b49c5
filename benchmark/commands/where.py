"""Which results directory and which run a command means: the same options and names for all of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmark.cluster.inventory import CHECKOUT, DEFAULT, asked_results
from benchmark.cluster.stored.find import find_run, require_name, run_at
from benchmark.errors import InputError

RUN = "a run id or the beginning of one, latest, or a run's directory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where runs are kept."""
    parser.add_argument(
        "--results-dir", type=Path, metavar="DIR", help="where runs are kept; default: as the inventory says"
    )
    parser.add_argument(
        "-i", "--inventory", action="append", metavar="PATH", help="the inventory to ask; default: that of ansible.cfg"
    )


def results_dir(arguments: argparse.Namespace) -> Path:
    """Return where runs are kept; where that is not the default, say so once on standard error. Raises InputError."""
    if arguments.results_dir is None:
        arguments.results_dir, why = asked_results(arguments.inventory or ())
        if arguments.results_dir not in (CHECKOUT / DEFAULT, Path(DEFAULT).absolute()):
            print(f"Runs are read from {arguments.results_dir} ({why}).", file=sys.stderr)
    found: Path = arguments.results_dir
    return found


def run_dir(arguments: argparse.Namespace, name: str) -> Path:
    """Return the directory of a run; only for a name that is no path the inventory is asked. Raises InputError."""
    if found := run_at(name):
        return found
    require_name(name)
    return find_run(results_dir(arguments), name)


def run_or_node(arguments: argparse.Namespace, name: str) -> tuple[Path, str]:
    """Return the run's directory for RUN, and for RUN/NODE also the node. Raises InputError."""
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
