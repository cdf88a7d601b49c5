"""`index.json` beside the runs: a cache of their content, so that a new run does not make all others be read again.

An entry is valid as long as the run's files are the ones that it was made from; other runs are read again. The index
contains nothing that is not in the runs' files: it may be removed, and writers need no lock, since an entry that is
lost is only read once more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark import __version__
from benchmark.cluster.stored.find import stored_ids
from benchmark.cluster.stored.read import StoredRun, read_stored
from benchmark.errors import InputError
from benchmark.files import read_text, write_atomic
from benchmark.rundir import RESULT_FILE, RUN_FILE
from benchmark.text.columns import clean

INDEX = "index.json"
# Version of the entries' format; another number, or another version of the program, rebuilds the index.
FORMAT = 6
MAX_BYTES = 512 * 2**20

Entry = dict[str, Any]


def stored_runs(results: Path, skipped: list[str] | None = None) -> list[StoredRun]:
    """Return every readable run of a results directory, oldest first; append to `skipped` why others are missing.

    Copies of a run, under any name, count once. Raises InputError if there is no such directory. Without write
    permission the index is not updated.
    """
    before = _read(results / INDEX)
    entries: dict[str, Entry] = {}
    runs = []
    unread: list[str] = []
    for run_id in stored_ids(results, unread):
        # Before reading the files: if they are replaced meanwhile, the entry does not match and is rebuilt.
        files = _files(results / run_id)
        entry = before.get(run_id, {})
        if entry.get("files") != files:
            try:
                entry = {"files": files, "content": read_stored(results, run_id)}
            except InputError as error:
                unread.append(str(error))
                continue
        entries[run_id] = entry
        runs.append(StoredRun(run_id, entry["content"]))
    if entries != before:
        with suppress(OSError):
            _write(results / INDEX, entries)
    runs = list(_without_copies(runs, unread))
    if skipped is not None:
        skipped += unread
    return runs


def runs_up_to(run_dir: Path) -> list[StoredRun]:
    """Return the runs up to the one in a directory, which comes last; none if it is not among them.

    Raises InputError if the results directory cannot be read.
    """
    runs = stored_runs(run_dir.parent)
    place = next((number for number, run in enumerate(runs) if run.run_id == run_dir.name), -1)
    return runs[: place + 1]


def _without_copies(runs: list[StoredRun], copies: list[str]) -> Iterator[StoredRun]:
    """Yield each run once, oldest first: the directory with its own name, or else the first one."""
    kept: dict[str, StoredRun] = {}
    for run in runs:
        own = str(run.content["short"]["run_id"])
        if own not in kept or run.run_id == own:
            kept[own] = run
    copies += [
        f"{clean(run.run_id)}: a copy of the run {clean(own)}, which counts once."
        for run in runs
        if run is not kept[own := str(run.content["short"]["run_id"])]
    ]
    yield from sorted(kept.values(), key=lambda run: (str(run.content["created_at"]), run.run_id))


def _files(directory: Path) -> list[list[int]]:
    """Return a stamp that changes whenever a file is written, replaced or copied."""
    found = []
    for name in (RUN_FILE, RESULT_FILE):
        with suppress(OSError):
            seen = (directory / name).lstat()
            found.append([seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns])
    return found


def _read(path: Path) -> dict[str, Entry]:
    """Return the entries; none if the file is missing, damaged or of another version."""
    try:
        head, _, body = read_text(path, MAX_BYTES).partition("\n")
        if json.loads(head) != _head(body):
            return {}
        entries = json.loads(body)
    except (InputError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write(path: Path, entries: dict[str, Entry]) -> None:
    body = json.dumps(entries, separators=(",", ":"))
    # Not synced: entries lost in a power cut are rebuilt.
    write_atomic(path, f"{json.dumps(_head(body))}\n{body}", synced=False)


def _head(body: str) -> dict[str, Any]:
    return {"format": FORMAT, "version": __version__, "sha256": hashlib.sha256(body.encode()).hexdigest()}
