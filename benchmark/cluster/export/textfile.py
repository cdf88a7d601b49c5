"""`llm_benchmark.prom`: the newest values of every node and request, for the node exporter's textfile collector.

There is one file for all, since the collector refuses a series that is in two files. Results directories may share it:
values from another directory are kept, unless there is a newer run of the same node and request here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import locks
from benchmark.cluster.export.prometheus import PREFIX, Exported, prometheus_lines
from benchmark.cluster.stored.index import stored_runs
from benchmark.cluster.stored.read import KIND, StoredRun
from benchmark.cluster.stored.states import PARTIAL, UNFINISHED
from benchmark.errors import InputError
from benchmark.files import read_record, read_text, write_atomic
from benchmark.records import ClusterResult, RunRecord
from benchmark.rundir import RESULT_FILE, RUN_FILE
from benchmark.text.columns import clean

FILE = "llm_benchmark.prom"
_LABEL = r'\w+="(?:[^"\\]|\\.)*"'
# A series: its metric, and the identifying labels, which come first.
_SERIES = re.compile(rf"({PREFIX}\w+)\{{((?:{_LABEL},){{{len(KIND)}}}{_LABEL})[,}}]")
_HEAD = re.compile(rf"# (?:HELP|TYPE) ({PREFIX}\w+) ")
_ORIGIN = re.compile(r',results_dir="((?:[^"\\]|\\.)*)"')
MAX_BYTES = 64 * 2**20


def write_textfile(directory: Path, results: Path) -> None:
    """Rewrite the file with the newest values in `results`, keeping those of other results directories.

    Raises InputError if that fails; the file is then unchanged.
    """
    try:
        with locks.alone(directory):
            own = _families("".join(prometheus_lines(newest(results))))
            write_atomic(directory / FILE, _merged(own, _families(_written(directory / FILE)), results))
            # Whatever the umask: the exporter runs as another user.
            (directory / FILE).chmod(0o644)
    except OSError as error:
        raise InputError(f"{directory / FILE}: cannot be written: {error.strerror}.") from None


def newest(results: Path) -> list[Exported]:
    """Return the newest run of each node and request. Raises InputError if the directory cannot be read.

    Nodes are left out if a newer run's inventory no longer has them but has other nodes of their run: it is the same
    inventory, and they were removed from it.
    """
    wanted: dict[str, set[str]] = {}
    known: set[tuple[str, tuple[str, ...]]] = set()
    inventories: list[set[str]] = []
    for run in reversed(stored_runs(results)):
        if run.inventory:
            # A node that was added when the run was resumed came into the inventory later.
            inventories.append({*run.inventory, *run.names})
        for name in _present(run, inventories):
            one = run.node(name)
            if one is not None and one.state not in (PARTIAL, UNFINISHED) and (name, one.kind) not in known:
                known.add((name, one.kind))
                wanted.setdefault(run.run_id, set()).add(name)
    return [_exported(results / run_id, names) for run_id, names in wanted.items()]


def _present(run: StoredRun, newer: Iterable[set[str]]) -> list[str]:
    fleet = {*run.inventory, *run.names}
    same = [inventory for inventory in newer if inventory & fleet]
    return [name for name in run.names if all(name in inventory for inventory in same)]


def _exported(run_dir: Path, nodes: set[str]) -> Exported:
    run, result = read_record(run_dir / RUN_FILE, RunRecord), read_record(run_dir / RESULT_FILE, ClusterResult)
    return Exported(run, result, frozenset(nodes), origin=str(run_dir.parent))


@dataclass
class _Family:
    """A metric's lines of text: its HELP and TYPE, and each series by its identifying labels."""

    heads: list[str] = field(default_factory=list)
    series: list[tuple[str, str]] = field(default_factory=list)


def _merged(own: Mapping[str, _Family], before: Mapping[str, _Family], results: Path) -> str:
    """Return the text of our own series and of those from other results directories, the newer of each."""
    ours, theirs = _created(own), _created(before)
    others = {whose for whose, origin in _origins(before).items() if origin != clean(results) and not _gone(origin)}
    kept = {whose for whose in others if whose not in ours or theirs.get(whose, 0) > ours[whose]}
    text = []
    for name in dict.fromkeys((*own, *before)):
        first, second = own.get(name, _Family()), before.get(name, _Family())
        series = [line for whose, line in first.series if whose not in kept]
        series += [line for whose, line in second.series if whose in kept]
        if series:
            text += [*(first.heads or second.heads), *series]
    return "".join(f"{line}\n" for line in text)


def _families(text: str) -> dict[str, _Family]:
    """Return the metrics in a text that we wrote; other lines are skipped."""
    found: dict[str, _Family] = {}
    for line in text.splitlines():
        if head := _HEAD.match(line):
            found.setdefault(head[1], _Family()).heads.append(line)
        elif series := _SERIES.match(line):
            found.setdefault(series[1], _Family()).series.append((series[2], line))
    return found


def _created(families: Mapping[str, _Family]) -> dict[str, float]:
    series = families.get(f"{PREFIX}run_created_timestamp_seconds", _Family()).series
    return {whose: float(line.rpartition(" ")[2]) for whose, line in series}


def _origins(families: Mapping[str, _Family]) -> dict[str, str]:
    series = families.get(f"{PREFIX}run_info", _Family()).series
    found = {whose: _ORIGIN.search(line) for whose, line in series}
    # Undo the format's own escapes.
    return {whose: re.sub(r"\\(.)", r"\1", one[1]) for whose, one in found.items() if one}


def _gone(results: str) -> bool:
    """Return whether a results directory was removed; an inaccessible one was not."""
    try:
        Path(results).stat()
    except FileNotFoundError:
        return "?" not in results  # it may replace an odd character
    except OSError:
        return False
    return False


def _written(path: Path) -> str:
    """Return the file's content; empty if there is none, or it is unreadable."""
    try:
        return read_text(path, MAX_BYTES)
    except InputError:
        return ""
