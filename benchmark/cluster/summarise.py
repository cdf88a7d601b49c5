"""Write the summary of a run in all its forms into the run's directory, for `aggregate` and the playbook."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.baseline import against_baseline
from benchmark.cluster.export.textfile import write_textfile
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.overview.write import write_index
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.node_table import render_node_table
from benchmark.cluster.render.summary import render_cluster
from benchmark.cluster.results.load import MAX_REASON
from benchmark.cluster.run_verdict import VERDICT_FILE, run_verdict
from benchmark.errors import BenchmarkError, InputError, SetupError
from benchmark.files import write_atomic, write_record
from benchmark.importing import importing, uncollected, undocumented
from benchmark.records import DRIVER, Failure, RunRecord
from benchmark.rundir import FAILURE, NODE_RESULTS, NODES, REPORT_FILE, RESULT_FILE, SUMMARY_FILE, read_run
from benchmark.text.node_result import render_node
from benchmark.unwritable import on_controller

MARKDOWN_FILE = "benchmark_summary.md"
TABLE_FILE = "nodes.csv"

_FAILURES: TypeAdapter[dict[str, dict[str, str]]] = TypeAdapter(dict[str, dict[str, str]])


@dataclass(frozen=True)
class Summary:
    """The outcome of a run, and the summary for a terminal."""

    outcome: Outcome
    text: str
    valid: bool


def summarise(run_dir: Path, failures: Mapping[str, Any] | None = None, prometheus_dir: Path | None = None) -> Summary:
    """Write the summary in all its forms into the run's directory, and the page over all runs beside it.

    `failures`: {"node": {"stage": "...", "reason": "..."}}, written first. `prometheus_dir`: where the text file for
    Prometheus is written. Errors with that file or with the page over all runs are only reported on stderr: they do not
    affect the run. Raises BenchmarkError if the summary cannot be made.
    """
    # Reading and drawing create few reference cycles, and looking for them takes a fifth of the time.
    with uncollected():
        try:
            return _summarise(run_dir, {} if failures is None else failures, prometheus_dir)
        finally:
            _renew_index(run_dir.parent)


def _summarise(run_dir: Path, failures: Mapping[str, Any], prometheus_dir: Path | None) -> Summary:
    run = read_run(run_dir)
    _keep_failures(run_dir, run, failures)
    gathered = gather(run_dir)
    outcome = Outcome(run, gathered.result, against_baseline=against_baseline(run_dir, gathered.compared))
    try:
        text = _write(run_dir, gathered, outcome)
    except OSError as error:
        raise InputError(f"The summary cannot be written: {on_controller(error, run_dir)}") from error
    if prometheus_dir is not None:
        try:
            write_textfile(prometheus_dir, run_dir.parent)
        except InputError as error:
            print(error, file=sys.stderr)
    return Summary(outcome, text, gathered.result.verdict.valid)


def _renew_index(results: Path) -> None:
    """Rewrite the page over all runs; an error does not affect the run."""
    try:
        write_index(results)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
    except Exception as error:  # a run's files may hold anything
        print(f"The page over all runs cannot be made: {type(error).__name__}: {error}", file=sys.stderr)


def _write(run_dir: Path, gathered: Gathered, outcome: Outcome) -> str:
    """Write the result in all its forms and return the one for a terminal. Raises OSError."""
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
    """Write each node's result as text beside it; a node with an order from the controller does not do that itself."""
    driver = [gathered.system.whole] if gathered.system else []
    for node in (*gathered.originals, *driver):
        if node.result is not None:
            try:
                text = render_node(node.result)
            except Exception as error:  # whatever a node reports must not break the others' summary
                text = (
                    f"This result cannot be shown as text ({type(error).__name__}: {error}): see the JSON beside it.\n"
                )
            place = run_dir / DRIVER if node in driver else run_dir / NODES / node.directory
            for path in place.glob(NODE_RESULTS):
                write_atomic(path.with_suffix(".txt"), text, synced=False)


def _report(run_dir: Path, gathered: Gathered, outcome: Outcome) -> str:
    try:
        # Imported here: it takes most of a second, and only drawing needs it.
        with importing(), undocumented():
            from benchmark.cluster.report.page import render_report
    except ModuleNotFoundError as missing:
        raise SetupError(
            f"{REPORT_FILE} cannot be made: the package {missing.name} is missing. Install requirements.txt into this "
            f"Python; the other files are in {run_dir}."
        ) from None
    return render_report(gathered, run_dir, outcome.against_baseline)


def _keep_failures(run_dir: Path, run: RunRecord, failures: Mapping[str, Any]) -> None:
    """Write `nodes/<node>/failure.json` for every failure; no other file of a node is touched.

    Raises InputError, before anything is written, if they are not failures of the run's nodes.
    """
    try:
        given = _FAILURES.validate_python(failures)
        records = [
            Failure(node=node, stage=reported.get("stage", "")[:200], reason=reported.get("reason", "")[:MAX_REASON])
            for node, reported in given.items()
        ]
    except ValidationError as error:
        raise InputError(f"The failures cannot be read: {error.errors()[0]['msg']}.") from None
    if unknown := sorted(given.keys() - run.nodes.keys()):
        raise InputError(f"The failures name nodes that are not in the run: {', '.join(unknown)}.")
    for failure in records:
        directory = run_dir / NODES / failure.node
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_record(directory / FAILURE, failure)
        except OSError as error:
            raise InputError(on_controller(error, directory)) from error
