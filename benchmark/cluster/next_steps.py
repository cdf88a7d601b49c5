"""The last lines of a run: where to read its results, and the next command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmark.cluster.names import some
from benchmark.files import read_record
from benchmark.records import ClusterResult, RunRecord
from benchmark.rundir import PAGE_FILE, REPORT_FILE, RESULT_FILE, read_run
from benchmark.words import plural

# How commands of the checkout begin.
CHECKOUT = Path(__file__).resolve().parents[2]


def next_steps(run_dir: Path) -> list[str]:
    """Return the last lines of a run: its report, the page over all runs, and what to do about missing nodes.

    Commands work in a shell in the current directory. Raises InputError if there is no result.
    """
    run, result = read_run(run_dir), read_record(run_dir / RESULT_FILE, ClusterResult)
    words = ["python3", "-m", "benchmark", "list", "--results-dir", _short(run_dir.parent)]
    page = run_dir.parent / PAGE_FILE
    lines = [f"Report: {_short(run_dir / REPORT_FILE)}"]
    # If it could not be written, that was reported.
    lines += [f"All runs: {_short(page)}"] if page.is_file() else []
    lines += [f"The same in this terminal: {_here(words)}" if page.is_file() else f"All runs: {_here(words)}"]
    if not (resume := _resume(run)):
        return lines
    missing = [row.node for row in result.nodes if not row.counted]
    if result.partial:
        lines.append(f"Resume it: {resume}")
    elif missing and len(missing) < len(result.nodes):
        # The existing results are kept, so the run is complete afterwards. A system has one result.
        what = "the whole system" if result.system else some(missing)
        lines.append(f"Measure {what} again, in this run: {resume}")
    elif missing:
        lines.append(f"Run it again: {run.command}")
    return lines


def without_summary(run_dir: Path) -> list[str]:
    """Return the last lines of a run that ended without a summary. Raises InputError if it is not a run."""
    lines = [f"No summary was made, for the reason above. The run is in {_short(run_dir)}"]
    resume = _resume(read_run(run_dir))
    return [*lines, f"Once that is fixed, resume it: {resume}"] if resume else lines


def _resume(run: RunRecord) -> str:
    """Return the command that resumes a run; empty for a run that no playbook began."""
    # Later words of a command line override earlier ones.
    given = "ansible-playbook" in run.command
    return f"{run.command} -e benchmark_resume={shlex.quote(run.run_id)}" if given else ""


# By playbook: what its nodes are once it has succeeded, and the next playbook.
_FOLLOWING = {
    "trust": ("trusted", "preflight"),
    "preflight": ("fit", "benchmark"),
    "provision": ("provisioned", "benchmark"),
}


def after_playbook(
    name: str, well: Sequence[str], failed: Sequence[str], command: str, measurable: bool = True
) -> list[str]:
    """Return the last line of a playbook that opens no run; no line if all nodes failed. `command`: how it was called.

    `measurable`: whether these nodes can be measured without others.
    """
    if name not in _FOLLOWING or not well:
        return []
    are, following = _FOLLOWING[name]
    if failed:
        return [
            f"{len(well)} of {plural(len(well) + len(failed), 'node')} {'is' if len(well) == 1 else 'are'} {are}. "
            f"Not {are}, for the reasons above: {some(failed)}."
        ]
    all_of_them = "Both" if len(well) == 2 else f"All {len(well)}"
    subject = f"{all_of_them} nodes are" if len(well) > 1 else f"{well[0]} is"
    if _FOLLOWING[name][1] == "benchmark" and not measurable:
        return [f"{subject} {are}. Next: measure with all nodes of the group or the system, without this --limit."]
    command = _without_fingerprints(command) if name == "trust" else command
    return [f"{subject} {are}. Next: {command.replace(f'{name}.yml', f'{following}.yml', 1)}"]


def _without_fingerprints(command: str) -> str:
    """Return a command without the arguments that only playbooks/trust.yml takes."""
    words = shlex.split(command)
    extra = [n for n, word in enumerate(words) if word.startswith("trust_fingerprints=") and words[n - 1] == "-e"]
    return shlex.join(word for n, word in enumerate(words) if n not in extra and n + 1 not in extra)


def _here(words: Sequence[str]) -> str:
    change = "" if Path.cwd() == CHECKOUT else f"cd {shlex.quote(str(CHECKOUT))} && "
    return change + shlex.join(words)


def _short(path: Path) -> str:
    """Return a path relative to the current directory if it is beneath it and commands are run there."""
    beneath = path.is_relative_to(Path.cwd()) and Path.cwd() == CHECKOUT
    return os.path.relpath(path) if beneath else str(path)
