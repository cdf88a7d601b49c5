"""Errors of disks that cannot be written to, recognised by errno or in a program's output (LC_ALL=C), and remedies."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# What to do, what else a setting may name, and how to check.
_REMEDIES = {
    errno.ENOSPC: ("Make room", "a larger disk", " (df -h shows space, df -i files)"),
    errno.EDQUOT: ("Remove files of this user (quota)", "another disk", ""),
    errno.EROFS: ("Mount it for writing", "another disk", ""),
}
FULL = (errno.ENOSPC, errno.EDQUOT)


def errno_in(text: str) -> int | None:
    """Return the errno of such an error in a program's output, if any."""
    return next((number for number in _REMEDIES if os.strerror(number) in text), None)


def remedy(number: int | None, setting: str = "") -> str:
    """Return a sentence on what to do about one of these errors; empty for others.

    `setting`: the setting that names the directory, if any.
    """
    if number not in _REMEDIES:
        return ""
    act, other, look = _REMEDIES[number]
    return f"{act}, or set {setting} to {other}{look}." if setting else f"{act}{look}."


def on_controller(error: OSError, place: Path | str, setting: str = "benchmark_results_dir") -> str:
    """Return a sentence on a file of the controller that cannot be written.

    `place`: its path, if the error does not have it.
    """
    what = f"{error.filename or place} on the controller cannot be written: {error.strerror}."
    return f"{what} {remedy(error.errno, setting)}".rstrip()
