"""A disk that cannot be written to: recognised by errno, or in what a program printed under LC_ALL=C; what to do."""

from __future__ import annotations

import errno
import os

_REMEDIES = {
    errno.ENOSPC: "Make room, or set {setting} to a larger disk (df -h shows space, df -i files).",
    errno.EDQUOT: "Remove files of this user (quota), or set {setting} to another disk.",
    errno.EROFS: "Have it mounted for writing, or set {setting} to another disk.",
}
FULL = (errno.ENOSPC, errno.EDQUOT)


def errno_in(text: str) -> int | None:
    """Return which of these errors a program's text names; None where it names none."""
    return next((number for number in _REMEDIES if os.strerror(number) in text), None)


def remedy(number: int | None, setting: str) -> str:
    """Return the sentence that says what to do about one of these errors; `setting` names the place. Else nothing."""
    return _REMEDIES[number].format(setting=setting) if number in _REMEDIES else ""
