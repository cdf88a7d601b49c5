"""`python3 -m benchmark aggregate`: make the cluster summary from a run's files."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.cluster.export.textfile import FILE
from benchmark.cluster.render import reports
from benchmark.cluster.run_verdict import VERDICT_FILE
from benchmark.cluster.summarise import MARKDOWN_FILE, TABLE_FILE, summarise
from benchmark.commands import where
from benchmark.errors import EXIT_INVALID, EXIT_VALID
from benchmark.rundir import REPORT_FILE, RESULT_FILE, SUMMARY_FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `aggregate`."""
    parser.epilog = (
        f"Writes {RESULT_FILE}, {SUMMARY_FILE}, {MARKDOWN_FILE}, {TABLE_FILE}, {REPORT_FILE} and {VERDICT_FILE} into "
        "the run's directory and prints the summary."
    )
    parser.add_argument("run", metavar="RUN", help=where.RUN)
    where.add_arguments(parser)
    parser.add_argument(
        "--prometheus-dir", type=Path, metavar="DIR", help=f"write {FILE}: the newest run of every node and request"
    )
    reports.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write and print the summary; return 0 for a valid verdict and 1 for an invalid one."""
    summary = summarise(where.run_dir(arguments, arguments.run), prometheus_dir=arguments.prometheus_dir)
    print(summary.text, end="")
    reports.prepare(arguments)
    reports.write(arguments, summary.outcome)
    return EXIT_VALID if summary.valid else EXIT_INVALID
