"""A record that a run was ended early, kept beside its other files for the summary."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import Interruption

INTERRUPTED = "interrupted.json"


def keep_interruption(run_dir: Path, by: str) -> None:
    """Record which signal stopped the playbook."""
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_record(run_dir / INTERRUPTED, Interruption(at=at, by=by))


def why_partial(run_dir: Path, measured: bool) -> str:
    """Return, in a sentence, why the run was ended early; empty if it was not.

    `measured`: whether any node had measured something by then.
    """
    if not (run_dir / INTERRUPTED).exists():
        return ""
    try:
        reported = read_record(run_dir / INTERRUPTED, Interruption)
    except InputError as error:
        return f"Interrupted: {error}"
    how = "Ctrl-C" if reported.by == "SIGINT" else reported.by
    if not measured:
        return f"Interrupted by {how} before anything was measured."
    return f"Interrupted by {how}: the nodes were stopped, and what they had measured by then was fetched."
