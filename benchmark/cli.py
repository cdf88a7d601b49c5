"""The command line: `python3 -m benchmark <command>`.

Exit codes: 0 done and valid; 1 done, verdict invalid; 2 bad input or settings; 3 environment not fit; 4 the run broke.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import select
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from benchmark import DISCLAIMER, __version__
from benchmark.errors import BenchmarkError, InputError, RunError, SetupError
from benchmark.importing import importing, missing_package, not_loading, one_blas_thread

# Each command's module has add_arguments(parser) and main(arguments) -> exit code. Only the one that is used is
# imported: a controller has no torch, a node no Ansible.
COMMANDS = {
    "run": ("benchmark.commands.run", "measure this node"),
    "fetch-model": (
        "benchmark.commands.fetch_model",
        "download a model's snapshot into the Hugging Face cache and verify it",
    ),
    "fetch-dataset": (
        "benchmark.commands.fetch_dataset",
        "prepare CNN/DailyMail for a model, in the Hugging Face cache, and verify it",
    ),
    "tiny-model": (
        "benchmark.commands.tiny_model",
        "make a tiny Llama-architecture model to try the benchmark with",
    ),
    "wheelhouse": (
        "benchmark.commands.wheelhouse",
        "fill a directory with the wheels that nodes without internet need",
    ),
    "manifest": ("benchmark.commands.manifest", "list everything that is ever downloaded, and how it is verified"),
    "aggregate": ("benchmark.commands.aggregate", "make the cluster summary from a run's files"),
    "compare": ("benchmark.commands.compare", "show what became better or worse between two runs, or two nodes"),
    "goodput": (
        "benchmark.commands.goodput",
        "show what was answered within limits of TTFT and TPOT, and for how many users at once",
    ),
    "list": ("benchmark.commands.list", "list all stored runs, newest first"),
    "index": ("benchmark.commands.index", "rewrite the page over all runs"),
    "history": (
        "benchmark.commands.history",
        "show every node over all stored runs, and when it changed",
    ),
    "baseline": ("benchmark.commands.baseline", "set the run that later runs are compared with"),
    "prune": ("benchmark.commands.prune", "list old runs of the results directory; with --yes, remove them"),
    "export": (
        "benchmark.commands.export",
        "export a run as CSV, Parquet, Prometheus, Markdown, or for MLCommons' viewer",
    ),
    "submission": ("benchmark.commands.submission", "write the tree that MLCommons' submission checker reads"),
    "schema": ("benchmark.commands.schema", "write the JSON schemas of every file that a run holds"),
    "ci": ("benchmark.commands.ci", "run the playbook for a CI system: JUnit, Markdown, an exit code by policy"),
}


def entry() -> NoReturn:
    """Run a command as a process and exit.

    Exits at once when everything is written: LoadGen or an engine may have left a thread that never ends, and a run's
    files are on the disk by then.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # also to a file or a pipe
    try:
        code = main()
    except Exception as error:
        code = RunError.exit_code  # Python's own, 1, would mean done and invalid
        if not (isinstance(error, BrokenPipeError) and _reader_is_gone()):
            with suppress(OSError):  # the cause may be a full disk that also holds the log
                traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _reader_is_gone() -> bool:
    """Return whether the output's reader is gone, as after `| head`, which is not an error."""
    waiting = select.poll()
    waiting.register(1, 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a failure is reported on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmark", description=f"LLM inference benchmark ({DISCLAIMER})."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in words[:1]:
            try:
                with importing(), one_blas_thread():
                    loaded = importlib.import_module(module)
            except ModuleNotFoundError as missing:
                print(not_loading(missing) or missing_package(missing.name), file=sys.stderr)
                return SetupError.exit_code
            except Exception as error:
                if (reported := not_loading(error)) is None:
                    raise
                print(reported, file=sys.stderr)
                return SetupError.exit_code
            loaded.add_arguments(command)
            command.set_defaults(main=loaded.main)
    if not words:
        # argparse would ask for a command without naming one.
        parser.print_help(sys.stderr)
        return InputError.exit_code
    parsed = parser.parse_args(words)
    try:
        return int(parsed.main(parsed))
    except BenchmarkError as error:
        with suppress(OSError):
            print(error, file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        if error.filename is None:
            raise
        with suppress(OSError):
            print(f"{error.filename}: {error.strerror}.", file=sys.stderr)
        return InputError.exit_code
