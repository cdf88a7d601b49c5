"""The progress of a run, from `progress.json`, for the terminals of the node and the controller.

The content comes from a node: it is validated, and cannot steer a terminal.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

# Prefix of a line on standard error with which a program reports its progress to the process that waits for it.
PREFIX = "progress: "
# Most bytes of progress.json that are read.
MOST_CHARACTERS = 2000
MOST_STATE = 100
# No count or time of a run is larger.
MOST = 1e12


@dataclass(frozen=True)
class Progress:
    """A run's report on its current stage. `left_s`: an estimate; None: there is no honest one."""

    state: str
    done: int = 0
    total: int = 0
    """Queries of the stage; 0: unknown."""
    qps: float | None = None
    latency_ms: float | None = None
    """Of the last answer."""
    left_s: float | None = None
    """Until the stage ends."""
    detail: str = ""
    """The work within the stage other than queries: bytes, packages."""

    @property
    def stage(self) -> str:
        """The state without details: "searching" for "searching: probe 3 at 4 queries/s"."""
        return self.state.split(":")[0].split(",")[0]

    def text(self) -> str:
        """Return the content of progress.json."""
        return json.dumps(asdict(self))


def say(words: str) -> None:
    """Report this program's progress to the process that waits for it."""
    print(f"{PREFIX}{words}", file=sys.stderr, flush=True)


def gigabytes(size: float) -> str:
    """Return a number of bytes in GB (1e9 bytes), or in MB if it is less than one GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def time_left_s(
    done: int, total: int, elapsed_s: float, least_s: float = 0.0, most_s: float = math.inf
) -> float | None:
    """Return the time left of a stage, from its pace so far and its minimum and maximum duration, in s.

    None if neither pace nor minimum is known, for example before the first query is done.
    """
    paced = (total - done) * elapsed_s / done if 0 < done <= total else None
    least = least_s - elapsed_s
    if paced is None:
        # Beyond its minimum duration, or before any query is done, the time left is unknown.
        return least if least > 0 and not total else None
    return min(max(paced, least), max(0.0, most_s - elapsed_s))


def parse(text: str) -> Progress:
    """Return the content of a progress file, without values that are missing, odd or of a wrong type."""
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
    """Return the progress as one line."""
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
