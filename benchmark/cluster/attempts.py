"""The attempts at a run: opening a further one, and setting aside the files of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import DRIVER, Attempt, Code, Controller, RunRecord
from benchmark.rundir import ATTEMPT, NODES, ORDER, RUN_FILE, RunOrder, point_latest
from benchmark.settings import ResolvedSettings


def open_attempt(
    run_dir: Path,
    run: RunRecord,
    todo: Mapping[str, ResolvedSettings],
    *,
    command: str,
    notes: Sequence[str] = (),
    hosts: Mapping[str, str] | None = None,
    leader: Controller | None = None,
    code: Code | None = None,
) -> int:
    """Write a further attempt at the nodes `todo` into run.json and return its number, counted from 1.

    The earlier attempt's files of them, and of the run as a whole, move into `attempt-<n>/`: they are kept, but not
    taken for results. Raises InputError if that cannot be written.
    """
    earlier = run.attempts or (Attempt(at=run.created_at, command=run.command[:4000], nodes=tuple(run.nodes)),)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    attempt = Attempt(
        at=now, command=command[:4000], nodes=tuple(todo), notes=tuple(notes), controller=leader, code=code
    )
    changes = {
        "nodes": {**run.nodes, **todo},
        "hosts": {**run.hosts, **(hosts or {})},
        "attempts": (*earlier, attempt),
    }
    try:
        for node in todo:
            _put_aside(run_dir / NODES / node, _attempt_of(run_dir / NODES / node, len(earlier)))
        if run.system is not None:
            _put_aside(run_dir / DRIVER, _attempt_of(run_dir / DRIVER, len(earlier)))
        _put_aside(run_dir, len(earlier), keep=(RUN_FILE, NODES, DRIVER))
        write_record(run_dir / RUN_FILE, run.model_copy(update=changes))
        point_latest(run_dir.parent, run.run_id)
    except OSError as error:
        raise InputError(
            f"benchmark_resume: {error.filename or run_dir} cannot be written: {error.strerror}."
        ) from error
    return len(earlier) + 1


def _attempt_of(place: Path, default: int) -> int:
    """Return which attempt left the files of a node."""
    try:
        return read_record(place / ORDER, RunOrder).attempt
    except InputError:
        return default


def _put_aside(place: Path, attempt: int, keep: Sequence[str] = ()) -> None:
    """Move the files in `place` into its `attempt-<n>/`, the order last: it says which attempt they are from."""
    place.mkdir(exist_ok=True)
    found = [path for path in place.iterdir() if path.name not in keep and not path.name.startswith(ATTEMPT)]
    if not found:
        return
    aside = place / f"{ATTEMPT}{attempt}"
    aside.mkdir(exist_ok=True)
    for path in sorted(found, key=lambda path: path.name == ORDER):
        path.replace(aside / path.name)
