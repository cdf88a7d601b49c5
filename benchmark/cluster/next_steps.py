"""Where a run that has ended is to be read, and the command that comes next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmark.cluster.names import some
from benchmark.files import read_record
from benchmark.records import ClusterResult
from benchmark.rundir import RESULT_FILE, read_run

REPORT = "report.html"
# Before the commands that are of the checkout.
CHECKOUT = Path(__file__).resolve().parents[2]


def next_steps(run_dir: Path) -> list[str]:
    """Return the last lines of a run: where its report is, where all runs are, and what to do about what is missing.

    Commands are given as a shell in the current directory takes them. Raises InputError where there is no result.
    """
    run, result = read_run(run_dir), read_record(run_dir / RESULT_FILE, ClusterResult)
    words = ["python3", "-m", "benchmark", "history", "--results-dir", _short(run_dir.parent)]
    lines = [f"Report: {_short(run_dir / REPORT)}", f"All runs: {_here(words)}"]
    if "ansible-playbook" not in run.command:
        return lines
    missing = [row.node for row in result.nodes if not row.counted]
    # Later words of a command line take the place of earlier ones.
    if result.partial:
        lines.append(f"Resume it: {run.command} -e benchmark_resume={shlex.quote(run.run_id)}")
    elif missing:
        limit = shlex.quote(",".join(missing))
        lines.append(f"Measure {some(missing)} again: {run.command} --limit {limit}")
    return lines


def _here(words: Sequence[str]) -> str:
    change = "" if Path.cwd() == CHECKOUT else f"cd {shlex.quote(str(CHECKOUT))} && "
    return change + shlex.join(words)


def _short(path: Path) -> str:
    """Return a path as it is from here, where it lies beneath the current directory and commands are run there."""
    beneath = path.is_relative_to(Path.cwd()) and Path.cwd() == CHECKOUT
    return os.path.relpath(path) if beneath else str(path)
