"""The verdict and its checks."""

from __future__ import annotations

from typing import Literal

from benchmark.records.base import Name, Record, Text


class Check(Record):
    """One value and its limit. `holds`: a condition is true (1) or false (0), and must be true."""

    metric: Name
    value: float | None
    comparison: Literal["at_least", "at_most", "holds"]
    limit: float
    passed: bool
    note: Text = ""


class Verdict(Record):
    """Valid if every check passed and there is no other reason against it; `reasons`: why not, a sentence each."""

    valid: bool
    checks: tuple[Check, ...] = ()
    reasons: tuple[Text, ...] = ()
