"""`python3 -m benchmark export`: a run for Grafana, a spreadsheet, a notebook or MLCommons' viewer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from benchmark import DISCLAIMER
from benchmark.cluster.aggregate import Gathered, gather
from benchmark.cluster.export.endpoints_tree import write_endpoints
from benchmark.cluster.export.parquet import write_parquet
from benchmark.cluster.export.prometheus import prometheus_lines, whole
from benchmark.cluster.export.tables import Rows, curves_of, nodes_of, probes_of, samples_of
from benchmark.cluster.export.text import csv_lines, markdown_lines
from benchmark.cluster.submission.tree import check_new
from benchmark.commands import where
from benchmark.errors import EXIT_VALID, InputError
from benchmark.files import atomic_writer

ENDPOINTS = "endpoints"
FORMATS = ("csv", "parquet", "prometheus", "markdown", ENDPOINTS)
TABLES: dict[str, Callable[[Gathered, Path], Rows]] = {
    "nodes": lambda gathered, _: nodes_of(gathered),
    "samples": samples_of,
    "probes": lambda gathered, _: probes_of(gathered),
    "curves": lambda gathered, _: curves_of(gathered),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("run", metavar="RUN", help=where.RUN)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="endpoints: a directory in the layout of MLCommons' mlperf-viz, a curve for each node of a sweep over "
        f"concurrency; {DISCLAIMER}",
    )
    parser.add_argument("--what", choices=tuple(TABLES), help="which rows; not for endpoints (default: nodes)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="where to write, instead of standard output; for endpoints: a new directory",
    )
    parser.add_argument(
        "--system",
        type=Path,
        metavar="FILE",
        help="for endpoints: facts about the system that no program can detect; if missing, a template is written",
    )
    where.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write the export; return 0. Raises InputError or SetupError."""
    if arguments.format == ENDPOINTS:
        return _write_endpoints(arguments)
    if arguments.system is not None:
        raise InputError("--system is only for --format endpoints.")
    what = arguments.what or "nodes"
    if arguments.format == "prometheus" and what == "samples":
        raise InputError("Prometheus keeps values over time, not samples: export nodes, or use csv or parquet.")
    if arguments.format == "prometheus" and what in ("probes", "curves"):
        raise InputError(f"For Prometheus the {what} are among the nodes' values: export nodes, or use csv or parquet.")
    run_dir = where.run_dir(arguments, arguments.run)
    output: Path | None = arguments.output
    if output is None:
        sys.stdout.flush()
        _write(run_dir, arguments.format, what, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return EXIT_VALID
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # A pipe or a device must not be replaced.
        with output.open("wb") if output.exists() and not output.is_file() else atomic_writer(output) as target:
            _write(run_dir, arguments.format, what, target)
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}.") from error
    return EXIT_VALID


def _write_endpoints(arguments: argparse.Namespace) -> int:
    if arguments.what is not None:
        raise InputError("--what: the endpoints format always has the points of a run: leave it out.")
    if arguments.output is None:
        raise InputError("--output: the endpoints format is a directory: name a new one.")
    check_new(arguments.output)
    gathered = gather(where.run_dir(arguments, arguments.run))
    print(*write_endpoints(arguments.output, gathered, arguments.system), sep="\n")
    return EXIT_VALID


def _write(run_dir: Path, form: str, what: str, target: BinaryIO) -> None:
    gathered = gather(run_dir)
    table = nodes_of(gathered, for_people=form == "markdown") if what == "nodes" else TABLES[what](gathered, run_dir)
    if form == "parquet":
        write_parquet(table, target)
        return
    lines = {"csv": csv_lines, "markdown": markdown_lines}
    text = prometheus_lines([whole(gathered.run, gathered.result)]) if form == "prometheus" else lines[form](table)
    for line in text:
        target.write(line.encode())
