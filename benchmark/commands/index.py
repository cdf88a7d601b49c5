"""`python3 -m benchmark index`: rewrite the page over all runs."""

from __future__ import annotations

import argparse

from benchmark.cluster.overview.write import write_index
from benchmark.commands import where
from benchmark.errors import EXIT_VALID
from benchmark.rundir import PAGE_FILE
from benchmark.words import plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `index`."""
    parser.epilog = f"Writes {PAGE_FILE} into the results directory, as every run does at its end."
    where.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write the page; return 0. Raises InputError if it cannot be written."""
    results = where.results_dir(arguments)
    print(f"{results / PAGE_FILE}: {plural(write_index(results), 'run')}")
    return EXIT_VALID
