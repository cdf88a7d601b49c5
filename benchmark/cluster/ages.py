"""Ages such as 12h, 90d or 4w."""

from __future__ import annotations

import re

from benchmark.errors import InputError

_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def parse_age(text: str, setting: str) -> int:
    """Return the seconds of an age such as 90d, 12h or 4w. Raises InputError that names the `setting`."""
    match = re.fullmatch(r"([0-9]{1,6}) ?([hdw])", str(text).strip())
    if not match:
        raise InputError(f"{setting} is {str(text)!r}: give hours, days or weeks, such as 12h, 90d or 4w.")
    return int(match[1]) * _UNITS[match[2]]
