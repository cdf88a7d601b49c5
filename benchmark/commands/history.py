"""`python3 -m benchmark history`: every node over all stored runs, and since when it is another one."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.cluster.history import node_history
from benchmark.cluster.history.show import render_history
from benchmark.errors import EXIT_VALID


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `history`."""
    parser.epilog = "Reads the runs' cluster results, never their samples: a run without one is passed over."
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where runs are kept")
    parser.add_argument("--node", default="", metavar="NODE", help="one node only")
    parser.add_argument("--json", action="store_true", help="print a record instead of text")


def main(arguments: argparse.Namespace) -> int:
    """Print the history; return 0. Raises InputError."""
    history = node_history(arguments.results, arguments.node)
    print(history.model_dump_json(indent=2) + "\n" if arguments.json else render_history(history), end="")
    return EXIT_VALID
