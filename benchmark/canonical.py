"""A hash of JSON values that does not depend on formatting."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_sha256(value: Any) -> str:
    """Return the hex SHA-256 of `value` as JSON with sorted keys and no white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
