"""`python3 -m benchmark prune`: show old runs of the results directory, and remove them."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.cluster.ages import parse_age
from benchmark.cluster.overview.write import write_index
from benchmark.cluster.pruning import PINNED, Plan, Stored, plan, remove
from benchmark.commands import where
from benchmark.errors import EXIT_VALID, InputError, RunError
from benchmark.rundir import PAGE_FILE
from benchmark.text.columns import clean
from benchmark.text.figures import byte_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prune`."""
    parser.epilog = (
        "Removes runs that are neither among the newest (--keep) nor recent (--older-than). Never removes a baseline, "
        f"a run named by --never or in {PINNED} (beside the runs, one id per line), a run in progress, the newest run "
        "with its settings and hardware, or anything that is not a run of this user. Without --yes nothing is removed."
    )
    parser.add_argument("--keep", type=int, metavar="N", help="keep the newest N runs")
    parser.add_argument("--older-than", metavar="AGE", help="keep younger runs: 12h, 90d, 4w")
    parser.add_argument("--never", action="append", default=[], metavar="RUN", help="keep this run; may be repeated")
    parser.add_argument("--yes", action="store_true", help="remove the runs, instead of only listing them")
    where.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """List or remove the runs; return 0. Raises InputError; RunError if something could not be removed."""
    if arguments.keep is None and arguments.older_than is None:
        raise InputError("Give --keep N, --older-than AGE such as 90d, or both.")
    if arguments.keep is not None and arguments.keep < 0:
        raise InputError("--keep takes a number of runs.")
    older_s = None if arguments.older_than is None else parse_age(arguments.older_than, "--older-than")
    results = where.results_dir(arguments)
    planned = plan(results, arguments.keep, older_s, arguments.never)
    _show(planned, results, done=arguments.yes)
    if arguments.yes:
        _remove(planned, results)
    elif planned.goes:
        print("Nothing was removed: add --yes to remove these runs.")
    return EXIT_VALID


def _show(planned: Plan, results: Path, done: bool) -> None:
    for one in planned.goes:
        print(f"{byte_size(one.size):>9}  {one.name}  {_described(one)}")
    total = byte_size(sum(one.size for one in planned.goes))
    what = f"{_runs(len(planned.goes))}, {total}" if planned.goes else "no run"
    print(f"{what[0].upper()}{what[1:]} {'to be removed' if done else 'would be removed'} from {results.resolve()}.")
    for name, why in planned.stays.items():
        print(f"    stays  {name}: {clean(why)}")
    for name, why in planned.foreign.items():
        print(f"    left alone  {clean(name)}: {clean(why)}")
    if planned.young:
        print(f"{_runs(planned.young)} {'is recent, and stays' if planned.young == 1 else 'are recent, and stay'}.")


def _described(one: Stored) -> str:
    if one.run is None:
        return "remains of an interrupted removal"
    profiles = sorted({asked.profile.name for asked in one.run.nodes.values()})
    count = len(one.run.nodes)
    return f"{one.age_s / 86400:.0f} d old, {', '.join(profiles)}, {count} node{'' if count == 1 else 's'}"


def _remove(planned: Plan, results: Path) -> None:
    freed, failures = 0, []
    for one in planned.goes:
        try:
            freed += remove(one)
        except OSError as error:
            failures.append(f"{error.filename or one.directory} cannot be removed: {error.strerror}.")
        except InputError as error:
            failures.append(str(error))
    if planned.goes:
        print(f"{byte_size(freed)} freed.")
        try:
            if (results / PAGE_FILE).exists():
                write_index(results)
        except InputError as error:
            failures.append(str(error))
    if failures:
        raise RunError("\n".join(failures))


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
