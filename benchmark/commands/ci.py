"""`python3 -m benchmark ci`: the whole job for a CI system: the playbook, reports, and an exit code by policy."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

import yaml

from benchmark.cluster.aggregate import gather
from benchmark.cluster.baseline import against_baseline
from benchmark.cluster.outcome import Outcome
from benchmark.cluster.playbook import CHECKOUT, PLAYBOOK, Played, play
from benchmark.cluster.render import reports
from benchmark.errors import InputError
from benchmark.rundir import SUMMARY_FILE

# ansible-playbook's exit codes if it refuses its input: an error, a failed task, a parser's or an option's error. Any
# other code (a signal, a bug, no such program) means that something broke.
REFUSALS = (1, 2, 4, 5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ci`."""
    parser.epilog = (
        "Exit codes: 0 passed by the policy; 1 a node failed or (strict) the verdict is invalid; "
        "2 bad input or settings; 4 the playbook broke or was interrupted."
    )
    parser.add_argument("--inventory", type=Path, metavar="PATH", help="default: the checkout's inventory")
    parser.add_argument("--limit", metavar="NODES", help="only these nodes, like ansible-playbook's --limit")
    parser.add_argument(
        "-e",
        dest="variables",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting for this run, a JSON object of settings, or @FILE; may be repeated",
    )
    parser.add_argument(
        "--policy",
        choices=("strict", "nodes"),
        default="strict",
        help="strict: an invalid verdict is a failure; nodes: only a node that failed is",
    )
    parser.add_argument("--artifacts", type=Path, metavar="DIR", help="keep ansible-runner's events and output here")
    reports.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the playbook, write the reports, return the exit code."""
    words = command_words(arguments)
    if not (CHECKOUT / PLAYBOOK).is_file():
        raise InputError(f"{CHECKOUT} is not a checkout: it has no {PLAYBOOK}. Run this from a checkout.")
    reports.prepare(arguments)
    outcome = outcome_of(play(words, arguments.artifacts))
    reports.write(arguments, outcome)
    if outcome.broke:
        print(outcome.broke, file=sys.stderr)
    return outcome.exit_code(arguments.policy)


def command_words(arguments: argparse.Namespace) -> list[str]:
    """Return the arguments for ansible-playbook. Raises InputError for options that make no sense."""
    words: list[str] = []
    if arguments.inventory is not None:
        if not arguments.inventory.exists():
            raise InputError(f"--inventory: {arguments.inventory} does not exist.")
        words += ["-i", str(arguments.inventory.resolve())]
    if arguments.limit:
        words += ["--limit", arguments.limit]
    if arguments.policy == "nodes":
        # The playbook's own exit code is then only about failed nodes. The user's -e comes later and wins.
        words += ["-e", "benchmark_fail_on_invalid=false"]
    for variable in arguments.variables:
        words += ["-e", _variables(variable)]
    return words


def _variables(given: str) -> str:
    """Return a value of -e for an ansible-playbook that runs in the checkout. Raises InputError if it is invalid."""
    if given.startswith("@"):
        path = Path(given[1:]).expanduser()
        if not path.is_file():
            raise InputError(f"-e {given}: there is no such file.")
        return f"@{path.resolve()}"
    if given.startswith("{"):
        with suppress(yaml.YAMLError):
            if isinstance(yaml.safe_load(given), dict):
                return given
        raise InputError("-e: a value that begins with { must be a JSON object of names and values.")
    name, equals, _ = given.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"-e {given}: give NAME=VALUE, a JSON object, or @FILE.")
    return given


def outcome_of(played: Played) -> Outcome:
    """Return the outcome from the run's files and from how the playbook ended."""
    ended = f"ansible-playbook ended with exit code {played.code}"
    stopped = ["The run was interrupted."] if played.interrupted else []
    if played.run_dir is None:
        refused = played.code in REFUSALS and not played.interrupted
        what = [*stopped, f"No run was opened: {ended}.", *played.reported]
        return Outcome(broke="\n".join(what), refused=refused)
    try:
        gathered = gather(played.run_dir)
    except InputError as error:
        return Outcome(broke="\n".join([*stopped, f"{ended}.", str(error)]))
    run, result = gathered.run, gathered.result
    delivered = result.verdict.valid and all(row.counted for row in result.nodes)
    if not (played.run_dir / SUMMARY_FILE).is_file():
        stopped.append(f"{ended} before the summary was made.")
    elif result.partial:
        stopped = []  # the summary says so
    elif played.code != 0 and delivered:
        stopped += [f"{ended}, though every node delivered and the verdict is valid.", *played.reported]
    changed = against_baseline(played.run_dir, gathered.compared)
    return Outcome(run, result, "\n".join(stopped), against_baseline=changed)
