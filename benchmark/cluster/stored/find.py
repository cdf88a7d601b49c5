"""Find a run's directory by any of its names, the same way everywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

from benchmark.cluster.names import some
from benchmark.errors import InputError
from benchmark.rundir import RUN_FILE
from benchmark.text.columns import clean

LATEST = "latest"
# Most runs that a message names.
MAX_NAMED = 3
# Characters of a run id.
MAX_NAME = 200
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z-")


def find_run(results: Path, name: str) -> Path:
    """Return the absolute directory of a run: an id, the unique beginning of one, `latest`, or a path.

    Raises InputError, naming the newest runs if there is none, and the candidates if there are several.
    """
    if found := run_at(name) or _inside(results, name) or (_run(Path(name)) if name else None):
        return found
    require_name(name)
    known = stored_ids(results)
    if begun := [run_id for run_id in known if name and run_id.startswith(name)]:
        if len(begun) > 1:
            raise InputError(f"{name} may be {some(begun[::-1], MAX_NAMED)}: give more of the run's id.")
        return (results / begun[0]).resolve()
    newest = f"the newest runs are {', '.join(known[: -MAX_NAMED - 1 : -1])}" if known else "there is none"
    raise InputError(f"{name!r} is neither a run in {results} nor a run's directory: {newest}.")


def run_at(path: str) -> Path | None:
    """Return the run's directory for a path with a slash; None if it is not one, or has no slash."""
    return _run(Path(path).expanduser()) if os.sep in path else None


def require_name(name: str) -> None:
    """Raise InputError for a name that can only be a path, and so is not searched for elsewhere."""
    if name.startswith((os.sep, f"~{os.sep}", f".{os.sep}", f"..{os.sep}")):
        raise InputError(f"{name} is not a run: it has no {RUN_FILE}.")


def stored_ids(results: Path, closed: list[str] | None = None) -> list[str]:
    """Return the ids of the runs in a results directory, oldest first: an id begins with its UTC time.

    Directories with a name of somebody's own come before them: what their runs' time is, the name does not say.

    Appended to `closed` is why others are not among them, such as another user's directory that may not be entered.
    Raises InputError where there is no such directory, or where it cannot be read.
    """
    try:
        with os.scandir(results) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_symlink()]
    except FileNotFoundError as error:
        raise InputError(
            f"{results}: {error.strerror}: no run was stored there yet, or benchmark_results_dir (--results-dir) "
            "should name another directory."
        ) from None
    except OSError as error:
        raise InputError(f"{results}: {error.strerror}.") from None
    found, odd, unread = list[str](), list[str](), list[str]()
    for name in sorted(names, key=lambda name: (_TIME.match(name) is not None, name)):
        try:
            if (results / name / RUN_FILE).is_file():
                (found if _is_name(name) else odd).append(name)
        except OSError as error:
            unread.append(f"{results / name}: {error.strerror}.")
    if closed is not None:
        closed += [*unread, *(f"{clean(name)}: no name of a run." for name in odd)]
    return found


def _inside(results: Path, name: str) -> Path | None:
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        return None
    if found := _run(results / name):
        return found
    # The results were copied without the link, or the newest run was removed.
    known = stored_ids(results) if name == LATEST and results.is_dir() else []
    return (results / known[-1]).resolve() if known else None


def _run(directory: Path) -> Path | None:
    return directory.resolve() if _is_file(directory / RUN_FILE) else None


def _is_name(name: str) -> bool:
    # As in records: a name that is not UTF-8 has surrogates.
    return len(name) <= MAX_NAME and not any("\ud800" <= character <= "\udfff" for character in name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, an inaccessible directory
        return False
