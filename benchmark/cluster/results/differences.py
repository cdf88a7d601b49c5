"""In what two JSON-like values differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

# Both sides compute the same formulas in double precision; only the last bits may differ between two machines.
RELATIVE_TOLERANCE = 1e-9


def differences(claimed: Any, given: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, claimed and given value for everything in which two JSON-like values differ."""
    within = f"{path}." if path else ""
    if claimed == given:  # of results nearly always; seen at once, however much they hold
        return
    if isinstance(claimed, dict) and isinstance(given, dict):
        for name in sorted(claimed.keys() | given.keys()):
            yield from differences(claimed.get(name), given.get(name), f"{within}{name}")
    elif isinstance(claimed, list | tuple) and isinstance(given, list | tuple) and len(claimed) == len(given):
        for number, (one, other) in enumerate(zip(claimed, given, strict=True)):
            yield from differences(one, other, f"{within}{number}")
    elif isinstance(claimed, float) and isinstance(given, float):
        if not math.isclose(claimed, given, rel_tol=RELATIVE_TOLERANCE):
            yield path, claimed, given
    else:
        yield path, claimed, given
