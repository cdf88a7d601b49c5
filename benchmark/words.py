"""Words for counts, changes and stages, so that no text has "1 nodes", "-0.0%" or "while ready"."""

from __future__ import annotations

import math
from typing import Literal

from benchmark.records.base import Stage

# Ends of sentences on when something happened.
_DURING: dict[Stage, str] = {
    "preflight": "in preflight",
    "python_env": "while its environment was made",
    "hf_cache": "while its model was provided",
    "environment": "while the node was examined",
    "probes": "while its hardware was probed",
    "loading": "while loading",
    "warm-up": "during the warm-up",
    "searching": "during the search for its rate",
    "ready": "while it waited for the other nodes",
    "measuring alone": "while measuring alone",
    "measuring": "while measuring",
    "accuracy": "during the accuracy run",
    "audit": "during the compliance test",
    "done": "after it had measured",
    "fetch": "while its files were fetched",
}


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: "1 node", "2 nodes", "1,200 queries" (of "query" and "queries")."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def of_them(some: int, total: int) -> str:
    """Return a part of a number that a sentence has given: "3 of them", "all of them"."""
    return f"{'all' if some == total > 1 else some} of them"


def during(stage: Stage) -> str:
    """Return the words for a run's stage that follow "failed" and "interrupted"."""
    return _DURING[stage]


def percent(change: float, digits: int = 1) -> str:
    """Return a relative change in percent with its sign, without a sign if it rounds to zero."""
    text = f"{change:+.{digits}%}"
    return text[1:] if float(text[:-1]) == 0 else text


def sentences(text: str) -> str:
    """Return lines as sentences of one paragraph, each with a full stop unless it has another end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(line if line[-1] in ".?!" else f"{line}." for line in lines)


def one_of(device: str) -> Literal["GPU", "replica"]:
    """Return what an engine's figures are per: "GPU", or "replica" on the CPU."""
    return "GPU" if device == "cuda" else "replica"


def brief(text: str, most: int = 300) -> str:
    """Return a text on one line of at most `most` characters, cut between two words if it is longer."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    head = line[: most - 4]
    whole = head.rpartition(" ")[0]
    # A long word (a path, a hash) is cut within.
    return f"{whole if 3 * len(whole) > most else head} ..."


def shown(value: float, beside: float | None = None) -> str:
    """Return a value with as many digits as a reader can use, and as distinguish it from the one `beside` it."""
    digits = 3
    while beside not in (None, value) and digits < 17 and _digits(value, digits) == _digits(beside, digits):
        digits += 1
    return _digits(value, digits)


def _digits(value: float | None, digits: int) -> str:
    """Return a number with at least `digits` significant digits, and all those before the decimal point."""
    if value is None or value == 0:
        return "0"
    whole = math.floor(math.log10(abs(value))) + 1
    text = f"{value:.{max(digits - whole, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
