"""`python3 -m benchmark aggregate`: the cluster summary, from a run's files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.baseline import against_baseline
from benchmark.cluster.export.textfile import FILE, write_textfile
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.overview.write import write_index
from benchmark.cluster.render import reports
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.results.load import MAX_REASON
from benchmark.cluster.run_verdict import VERDICT_FILE, run_verdict
from benchmark.commands import where
from benchmark.errors import EXIT_INVALID, EXIT_VALID, BenchmarkError, InputError, SetupError
from benchmark.files import write_atomic, write_record
from benchmark.records import DRIVER, Failure, RunRecord
from benchmark.rundir import FAILURE, NODES, REPORT_FILE, RESULT_FILE, read_run
from benchmark.text import render_node

SUMMARY_FILE = "benchmark_summary.txt"
MARKDOWN_FILE = "benchmark_summary.md"
TABLE_FILE = "nodes.csv"

_FAILURES: TypeAdapter[dict[str, dict[str, str]]] = TypeAdapter(dict[str, dict[str, str]])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `aggregate`."""
    parser.epilog = (
        f"Writes {RESULT_FILE}, {SUMMARY_FILE}, {MARKDOWN_FILE}, {TABLE_FILE}, {REPORT_FILE} and {VERDICT_FILE} into "
        "the run's directory and prints the summary."
    )
    parser.add_argument("run", metavar="RUN", help=where.RUN)
    where.add_arguments(parser)
    parser.add_argument(
        "--failures-from-stdin",
        action="store_true",
        help='first keep why nodes failed: {"node": {"stage": "...", "reason": "..."}}',
    )
    parser.add_argument(
        "--prometheus-dir", type=Path, metavar="DIR", help=f"write {FILE}: the newest run of every node and request"
    )
    reports.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write and print the summary; return 0 for a valid verdict and 1 for an invalid one."""
    run_dir = where.run_dir(arguments, arguments.run)
    try:
        return _summarise(arguments, run_dir)
    finally:
        _renew_index(run_dir.parent)


def _summarise(arguments: argparse.Namespace, run_dir: Path) -> int:
    run = read_run(run_dir)
    if arguments.failures_from_stdin:
        keep_failures(run_dir, run, sys.stdin.read())
    gathered = gather(run_dir)
    result = gathered.result
    outcome = Outcome(run, result, against_baseline=against_baseline(run_dir, gathered.compared))
    try:
        print(_write(run_dir, gathered, outcome), end="")
    except OSError as error:
        raise InputError(f"{run_dir}: the summary cannot be written: {error.strerror}.") from error
    reports.prepare(arguments)
    reports.write(arguments, outcome)
    if arguments.prometheus_dir is not None:
        try:
            write_textfile(arguments.prometheus_dir, run_dir.parent)
        except InputError as error:
            print(error, file=sys.stderr)  # the run is not worse for it
    return EXIT_VALID if result.verdict.valid else EXIT_INVALID


def _renew_index(results: Path) -> None:
    """Make the page over all runs anew; no run is worse for a page that cannot be made."""
    try:
        write_index(results)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
    except Exception as error:  # whatever a run's files claim
        print(f"The page over all runs cannot be made: {type(error).__name__}: {error}", file=sys.stderr)


def _write(run_dir: Path, gathered: Gathered, outcome: Outcome) -> str:
    """Write the result in all its forms and return the one for a terminal. Raises OSError where it cannot."""
    summary = render_cluster(gathered.result, gathered.run)
    write_record(run_dir / RESULT_FILE, gathered.result)
    write_atomic(run_dir / SUMMARY_FILE, summary)
    write_atomic(run_dir / MARKDOWN_FILE, render_job_summary(outcome))
    write_atomic(run_dir / TABLE_FILE, render_node_table(gathered))
    write_atomic(run_dir / REPORT_FILE, _report(run_dir, gathered, outcome))
    _write_texts(run_dir, gathered)
    write_record(run_dir / VERDICT_FILE, run_verdict(outcome, run_dir, REPORT_FILE))
    return summary


def _write_texts(run_dir: Path, gathered: Gathered) -> None:
    """Write each node's result as text beside it; a node that was sent an order has not done that itself."""
    driver = [gathered.system.whole] if gathered.system else []
    for node in (*gathered.originals, *driver):
        if node.result is not None:
            try:
                text = render_node(node.result)
            except Exception as error:  # whatever a node claims, the others' summary is not to break on it
                text = (
                    f"This result cannot be shown as text ({type(error).__name__}: {error}): see the JSON beside it.\n"
                )
            place = run_dir / DRIVER if node in driver else run_dir / NODES / node.node
            for path in place.glob("mlperf_datacenter_*.json"):
                write_atomic(path.with_suffix(".txt"), text, synced=False)


def _report(run_dir: Path, gathered: Gathered, outcome: Outcome) -> str:
    try:
        # Here and not above: of all that is imported it alone takes most of a second, and only this command draws.
        from benchmark.cluster.report.page import render_report
    except ModuleNotFoundError as missing:
        raise SetupError(
            f"{REPORT_FILE} cannot be made: the package {missing.name} is missing. Install requirements.txt into this "
            f"Python; the other files are in {run_dir}."
        ) from None
    return render_report(gathered, run_dir, outcome.against_baseline)


def keep_failures(run_dir: Path, run: RunRecord, text: str) -> None:
    """Write `nodes/<node>/failure.json` for every failure in the JSON `text`; nothing else of a node is touched.

    Raises InputError, before anything is written, where the text is not failures of the run's nodes.
    """
    try:
        given = _FAILURES.validate_json(text or "{}")
        failures = [
            Failure(node=node, stage=reported.get("stage", "")[:200], reason=reported.get("reason", "")[:MAX_REASON])
            for node, reported in given.items()
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
