"""The verdict and the checks that it rests on."""

from __future__ import annotations

from typing import Literal

from benchmark.records.base import Name, Record, Text


class Check(Record):
    """One value beside its limit. `holds`: something is so (1) or is not (0), and has to be."""

    metric: Name
    value: float | None
    comparison: Literal["at_least", "at_most", "holds"]
    limit: float
    passed: bool
    note: Text = ""


class Verdict(Record):
    """Valid when every check passed and nothing else spoke against it; `reasons` says why not, a sentence each."""

    valid: bool
    checks: tuple[Check, ...] = ()
    reasons: tuple[Text, ...] = ()
