"""The differences between two JSON-like values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

# Both sides use the same formulas in double precision; only the last bits may differ between machines.
RELATIVE_TOLERANCE = 1e-9


def differences(claimed: Any, given: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, claimed value, given value) for every difference between two JSON-like values."""
    within = f"{path}." if path else ""
    if claimed == given:  # nearly always true of results, and fast however large they are
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
