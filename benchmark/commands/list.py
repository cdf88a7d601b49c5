"""`python3 -m benchmark list`: all stored runs, newest first."""

from __future__ import annotations

import argparse

from benchmark.cluster.overview.listing import Wanted, list_runs
from benchmark.cluster.overview.show import render_list
from benchmark.cluster.stored.states import IN_PROGRESS, INVALID, PARTIAL, UNFINISHED, VALID
from benchmark.commands import where
from benchmark.errors import EXIT_VALID, InputError

# Command line names of verdicts, without spaces.
VERDICTS = {state.replace(" ", "-"): state for state in (VALID, INVALID, PARTIAL, IN_PROGRESS, UNFINISHED)}
LIMIT = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `list`."""
    parser.epilog = "Reads the runs' cluster results, never their samples. index.html beside the runs shows the same."
    where.add_arguments(parser)
    parser.add_argument("--profile", default="", metavar="PROFILE", help="only runs of this profile")
    parser.add_argument("--node", default="", metavar="NODE", help="only runs with this node")
    parser.add_argument("--verdict", default="", choices=tuple(VERDICTS), help="only runs that ended like this")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help=f"only the newest N of these; 0: all; default {LIMIT}"
    )
    parser.add_argument("--json", action="store_true", help="print a record instead of text")


def main(arguments: argparse.Namespace) -> int:
    """Print the runs; return 0. Raises InputError, also for a profile or a node that no run has."""
    if arguments.limit < 0:
        raise InputError("--limit takes a number of runs; 0 shows all.")
    verdict = VERDICTS.get(arguments.verdict, "")
    found = list_runs(where.results_dir(arguments), Wanted(arguments.profile, arguments.node, verdict, arguments.limit))
    print(found.model_dump_json(indent=2) + "\n" if arguments.json else render_list(found), end="")
    return EXIT_VALID
