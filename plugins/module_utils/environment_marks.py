"""Mark, find, keep and remove the environments beside each other on a node."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path

MARKER = ".llm-benchmark"
# Renamed to the marker once the environment is complete.
BEGUN = ".llm-benchmark.part"
# The length of a fingerprint in directory names.
SHORT = 12
# How many environments, and versions of our own code in each, are kept. Others are removed, unless a run uses them or
# they were requested within the hour, for a run that is about to start.
KEPT, CODES_KEPT, WANTED_S = 3, 10, 3600
# Without file locks, an environment that was used within the longest time limit of a run counts as in use.
USED_S = 8 * 86400
# Lists what was installed from a wheelhouse: the lines of `locked`.
WHEELS = ".llm-benchmark-wheels"


class InstallError(Exception):
    """The environment could not be made; the message is a sentence."""


def installed_sum(directory: Path) -> str:
    """Return a checksum of the names and versions of what is installed, as roles/python_env/files/state.sh does."""
    infos = sorted(directory.glob("lib/python3*/site-packages/*.dist-info"), key=os.fsencode)
    names = [os.fsencode(path.name) for path in infos]
    return hashlib.sha256(b"".join(name + b"\n" for name in names)).hexdigest()


def is_made(directory: Path, fingerprint: str) -> bool:
    """Return whether the environment was made with this fingerprint and has not been changed since."""
    try:
        lines = (directory / MARKER).read_text().split()
    except OSError:
        return False
    return lines == [fingerprint, installed_sum(directory)]


def installed_wheels(directory: Path) -> list[str]:
    """Return what was installed from a wheelhouse; nothing if the environment has been changed since."""
    try:
        if (directory / MARKER).read_text().split()[1] != installed_sum(directory):
            return []
        return (directory / WHEELS).read_text().splitlines()
    except (OSError, IndexError):
        return []


def kept(base: Path) -> list[Path]:
    """Return the directories of the environments beside each other, in the order of roles/python_env/files."""
    return [base, *sorted(base.parent.glob(f"{base.name}-{'[0-9a-f]' * SHORT}"))]


def find(base: Path, fingerprint: str) -> Path | None:
    """Return the directory of an environment with this fingerprint, even if it has been changed since."""
    return next((one for one in kept(base) if marked(one) == fingerprint), None)


def marked(directory: Path) -> str:
    """Return the fingerprint in a directory's mark; empty: it was never completed, or is not ours."""
    try:
        return (directory / MARKER).read_text().split()[0]
    except (OSError, IndexError):
        return ""


def place_for(base: Path, fingerprint: str) -> Path:
    """Return the directory for a new environment: an unfinished one, or one beside those that others may use."""
    place = find(base, fingerprint) or (base.with_name(f"{base.name}-{fingerprint[:SHORT]}") if marked(base) else base)
    if in_use(place):
        raise InstallError(f"A run uses {place}, which was changed after it was made: wait until the run has ended.")
    return place


def in_use(directory: Path) -> bool:
    """Return whether a run uses the environment: a run holds shared locks on the marks of what it uses."""
    for mark in (directory / MARKER, *directory.glob(f"code/*/{MARKER}")):
        try:
            with mark.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            if time.time() - mark.stat().st_mtime < USED_S:
                return True
    return False


def prune(directories: list[Path], keep: int) -> None:
    """Remove incomplete environments, and all but the `keep` last requested; none that is in use."""
    made = [one for one in directories if marked(one)]
    made.sort(key=lambda one: (one / MARKER).stat().st_mtime, reverse=True)
    old = [one for one in made[keep:] if time.time() - (one / MARKER).stat().st_mtime > WANTED_S and not in_use(one)]
    for one in [*old, *(one for one in directories if one.is_dir() and not marked(one))]:
        # The mark first: a half-removed environment must not look complete.
        (one / MARKER).unlink(missing_ok=True)
        shutil.rmtree(one, ignore_errors=True)


def refuse_others(directory: Path, anew: bool, settings: str) -> None:
    """Raise InstallError if a directory was neither made nor begun here, and would be removed, or is no environment.

    It may be a home directory, or an environment that another program made.
    """
    ours = (directory / MARKER).exists() or (directory / BEGUN).exists()
    if ours or not directory.is_dir() or not any(directory.iterdir()):
        return
    if anew or not (directory / "pyvenv.cfg").exists():
        raise InstallError(
            f"{directory} exists, and was not made by the benchmark: it is left alone. Set {settings}_dir to a "
            f"directory of its own, remove it if it is not needed, or set {settings}_manage: false to measure with it."
        )


def begin(directory: Path) -> None:
    """Make the directory of an environment and mark it as begun."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / BEGUN).touch()


def mark(directory: Path, fingerprint: str) -> None:
    """Mark an environment as complete."""
    beside = directory / BEGUN
    beside.write_text(f"{fingerprint}\n{installed_sum(directory)}\n")
    beside.replace(directory / MARKER)
