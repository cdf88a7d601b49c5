"""`python3 -m benchmark history`: every node over all stored runs, and when it changed."""

from __future__ import annotations

import argparse

from benchmark.cluster.history import node_history
from benchmark.cluster.history.show import render_history
from benchmark.commands import where
from benchmark.errors import EXIT_VALID


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `history`."""
    parser.epilog = "Reads the runs' cluster results, never their samples, through results/index.json."
    where.add_arguments(parser)
    parser.add_argument("--node", default="", metavar="NODE", help="only this node")
    parser.add_argument("--json", action="store_true", help="print a record instead of text")


def main(arguments: argparse.Namespace) -> int:
    """Print the history; return 0. Raises InputError, also for a node that no run has."""
    history = node_history(where.results_dir(arguments), arguments.node)
    print(history.model_dump_json(indent=2) + "\n" if arguments.json else render_history(history), end="")
    return EXIT_VALID
