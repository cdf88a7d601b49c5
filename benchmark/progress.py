"""How far a run is, as `progress.json` tells it: what a node's terminal and the controller show.

What is read here came from a node: it is data, and nothing of it can steer a terminal.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

# How a line on standard error begins in which a program that is waited for says how far it is.
PREFIX = "progress: "
# Of progress.json; more than this is not read.
MOST_CHARACTERS = 2000
MOST_STATE = 100
# No count and no time of a run is larger.
MOST = 1e12


@dataclass(frozen=True)
class Progress:
    """What a run says of the stage that it is in. `left_s` is an estimate; None: there is no honest one."""

    state: str
    done: int = 0
    total: int = 0
    """Queries of the stage; 0: nobody knows how many there will be."""
    qps: float | None = None
    latency_ms: float | None = None
    """Of the last answer."""
    left_s: float | None = None
    """Until the stage ends."""
    detail: str = ""
    """What is being done within the stage, where that is no queries: bytes, packages."""

    @property
    def stage(self) -> str:
        """The state without its particulars: "searching" of "searching: probe 3 at 4 queries/s"."""
        return self.state.split(":")[0].split(",")[0]

    def text(self) -> str:
        """Return the content of progress.json."""
        return json.dumps(asdict(self))


def say(words: str) -> None:
    """Say how far this program is to whoever waits for it."""
    print(f"{PREFIX}{words}", file=sys.stderr, flush=True)


def gigabytes(size: float) -> str:
    """Return a number of bytes as GB (1e9 bytes), or as MB where it is less than one."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def time_left_s(
    done: int, total: int, elapsed_s: float, least_s: float = 0.0, most_s: float = math.inf
) -> float | None:
    """Return how long a stage goes on, from its pace so far and how long it takes at least and at most, in s.

    None where neither pace nor least duration is known: no query is done yet, say.
    """
    paced = (total - done) * elapsed_s / done if 0 < done <= total else None
    least = least_s - elapsed_s
    if paced is None:
        # Beyond its least duration, or with queries none of which is done, nobody knows how long it takes.
        return least if least > 0 and not total else None
    return min(max(paced, least), max(0.0, most_s - elapsed_s))


def parse(text: str) -> Progress:
    """Return what a progress file tells; whatever in it is missing, odd or a lie in kind is left out."""
    try:
        content = json.loads(text[:MOST_CHARACTERS])
    except (ValueError, RecursionError):
        content = {}
    if not isinstance(content, dict):
        content = {}
    words, detail = (
        "".join(c for c in str(content.get(name, ""))[:MOST_STATE] if c.isprintable()).strip()
        for name in ("state", "detail")
    )
    return Progress(
        state=words or "starting",
        done=int(_number(content.get("done")) or 0),
        total=int(_number(content.get("total")) or 0),
        qps=_number(content.get("qps")),
        latency_ms=_number(content.get("latency_ms")),
        left_s=_number(content.get("left_s")),
        detail=detail,
    )


def describe(progress: Progress) -> str:
    """Return one line."""
    words = progress.state + (f": {progress.detail}" if progress.detail else "")
    if progress.total:
        words += f" {progress.done}/{progress.total}"
    elif progress.done:
        words += f" {progress.done} queries"
    if progress.qps is not None:
        words += f", {progress.qps:.2f} QPS"
    if progress.latency_ms is not None:
        words += f", last answer {progress.latency_ms / 1000:.2f} s"
    if progress.left_s is not None:
        words += f", {clock(progress.left_s)} left"
    return words


def clock(seconds: float) -> str:
    """Return 75 as 1:15, and 3675 as 1:01:15."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 <= value < MOST else None
