"""Files of a run for CI systems: the options `--junit` and `--markdown`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.cluster.outcome import Outcome
from benchmark.cluster.render.job_summary import render_job_summary
from benchmark.cluster.render.junit import render_junit
from benchmark.errors import InputError
from benchmark.files import write_atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two options."""
    parser.add_argument("--junit", type=Path, metavar="PATH", help="write JUnit XML: a suite per node")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write a summary for a CI job's page")


def prepare(arguments: argparse.Namespace) -> None:
    """Create the files' directories, before the run. Raises InputError if one cannot be created."""
    for path in _wanted(arguments):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path.parent}: cannot be created: {error.strerror}.") from error


def write(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Write the requested files. Raises InputError if one cannot be written."""
    for path, render in ((arguments.junit, render_junit), (arguments.markdown, render_job_summary)):
        if path is None:
            continue
        try:
            if path.exists() and not path.is_file():
                path.write_text(
                    render(outcome), encoding="utf-8"
                )  # not renamed into place: it may be a pipe or a terminal
            else:
                write_atomic(path, render(outcome))
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}.") from error


def _wanted(arguments: argparse.Namespace) -> list[Path]:
    return [path for path in (arguments.junit, arguments.markdown) if path is not None]
