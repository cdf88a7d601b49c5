"""`python3 -m benchmark aggregate`: the cluster summary, from a run's files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmark.cluster import reports
from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.load import MAX_REASON, read_run
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.summary import render_cluster
from benchmark.errors import EXIT_INVALID, EXIT_VALID, InputError
from benchmark.files import write_atomic, write_record
from benchmark.records import Failure, RunRecord
from benchmark.rundir import FAILURE, NODES

RESULT_FILE = "aggregated_datacenter_results.json"
SUMMARY_FILE = "benchmark_summary.txt"

_FAILURES: TypeAdapter[dict[str, dict[str, str]]] = TypeAdapter(dict[str, dict[str, str]])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `aggregate`."""
    parser.epilog = f"Writes {RESULT_FILE} and {SUMMARY_FILE} into the run's directory and prints the summary."
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="results/<run id>, or results/latest")
    parser.add_argument(
        "--failures-from-stdin",
        action="store_true",
        help='first keep why nodes failed: {"node": {"stage": "...", "reason": "..."}}',
    )
    reports.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write and print the summary; return 0 for a valid verdict and 1 for an invalid one."""
    run_dir = arguments.run_dir.resolve()
    run = read_run(run_dir)
    if arguments.failures_from_stdin:
        keep_failures(run_dir, run, sys.stdin.read())
    result = aggregate(run_dir)
    summary = render_cluster(result, run)
    try:
        write_record(run_dir / RESULT_FILE, result)
        write_atomic(run_dir / SUMMARY_FILE, summary)
    except OSError as error:
        raise InputError(f"{run_dir}: the summary cannot be written: {error.strerror}.") from error
    print(summary, end="")
    reports.prepare(arguments)
    reports.write(arguments, Outcome(run, result))
    return EXIT_VALID if result.verdict.valid else EXIT_INVALID


def keep_failures(run_dir: Path, run: RunRecord, text: str) -> None:
    """Write `nodes/<node>/failure.json` for every failure in the JSON `text`; nothing else of a node is touched.

    Raises InputError, before anything is written, where the text is not failures of the run's nodes.
    """
    try:
        given = _FAILURES.validate_json(text or "{}")
        failures = [
            Failure(node=node, stage=told.get("stage", "")[:200], reason=told.get("reason", "")[:MAX_REASON])
            for node, told in given.items()
        ]
    except ValidationError as error:
        raise InputError(f"The failures on stdin cannot be read: {error.errors()[0]['msg']}.") from None
    if unknown := sorted(given.keys() - run.nodes.keys()):
        raise InputError(f"The failures on stdin tell of nodes that were not asked: {', '.join(unknown)}.")
    for failure in failures:
        directory = run_dir / NODES / failure.node
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_record(directory / FAILURE, failure)
        except OSError as error:
            raise InputError(f"{directory}: cannot be written: {error.strerror}.") from error
