"""`python3 -m benchmark submission`: write the tree that MLCommons' submission checker reads, from one or more runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmark import DISCLAIMER
from benchmark.cluster.submission.missing import missing
from benchmark.cluster.submission.parts import gather_parts
from benchmark.cluster.submission.rules import DIVISIONS, ROUND, check_submitter
from benchmark.cluster.submission.system_file import read_system, write_template
from benchmark.cluster.submission.systems import host_interconnect
from benchmark.cluster.submission.tree import check_new, write_tree
from benchmark.commands import where
from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError
from benchmark.text.columns import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `submission`."""
    parser.epilog = (
        "Exit codes: 0 the tree has what the division requires, as far as this program can check; 1 it was written, "
        "but something is missing; 2 bad input, or system.yml was written as a template to fill in."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help=where.RUN)
    parser.add_argument("--division", choices=DIVISIONS, required=True)
    parser.add_argument("--submitter", required=True, metavar="NAME", help="the organization's name in MLCommons")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new directory for the tree")
    parser.add_argument(
        "--system",
        type=Path,
        default=Path("system.yml"),
        metavar="FILE",
        help="facts about the system that no program can detect; if missing, a template is written (default: "
        "system.yml)",
    )
    parser.add_argument("--node", action="append", default=[], metavar="NAME", help="only this node; may be repeated")
    where.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write the tree and print what is missing. Raises InputError."""
    check_submitter(arguments.submitter, "--submitter")
    check_new(arguments.output)
    submission = gather_parts([where.run_dir(arguments, run) for run in arguments.runs], arguments.node)
    seen = submission.parts(submission.nodes[0])[0].environment
    if not arguments.system.exists():
        write_template(arguments.system)
        raise InputError(
            f"{arguments.system} was written: fill in its answers about the system, then run the command again."
        )
    answers = read_system(arguments.system, len(seen.gpus), bool(host_interconnect(seen)))
    lacks = missing(submission, arguments.division)
    output = write_tree(arguments.output, submission, answers, arguments.division, arguments.submitter)
    print(f"{output}: {arguments.division} division of MLPerf Inference v{ROUND}; {DISCLAIMER}.")
    # They contain text from nodes.
    for sentence in submission.left_out:
        print(clean(sentence))
    if not lacks:
        print("Nothing is missing, as far as this program can check. MLCommons' own checker decides: docs/mlperf.md.")
        return EXIT_VALID
    sys.stdout.flush()
    print("Missing:", *(f"- {clean(sentence)}" for sentence in lacks), sep="\n")
    return EXIT_INVALID
