"""A disk that cannot be written to: recognised by errno, or in what a program printed under LC_ALL=C; what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# What to do, where else a setting may lead, and how to look.
_REMEDIES = {
    errno.ENOSPC: ("Make room", "a larger disk", " (df -h shows space, df -i files)"),
    errno.EDQUOT: ("Remove files of this user (quota)", "another disk", ""),
    errno.EROFS: ("Have it mounted for writing", "another disk", ""),
}
FULL = (errno.ENOSPC, errno.EDQUOT)


def errno_in(text: str) -> int | None:
    """Return which of these errors a program's text names; None where it names none."""
    return next((number for number in _REMEDIES if os.strerror(number) in text), None)


def remedy(number: int | None, setting: str = "") -> str:
    """Return the sentence that says what to do about one of these errors; else nothing.

    `setting`: the one that names the place, where one does.
    """
    if number not in _REMEDIES:
        return ""
    act, other, look = _REMEDIES[number]
    return f"{act}, or set {setting} to {other}{look}." if setting else f"{act}{look}."


def on_controller(error: OSError, place: Path | str, setting: str = "benchmark_results_dir") -> str:
    """Return what is to be said where a file of the controller's own cannot be written.

    `place`: where it was to be, should the error not say it.
    """
    what = f"{error.filename or place} on the controller cannot be written: {error.strerror}."
    return f"{what} {remedy(error.errno, setting)}".rstrip()
