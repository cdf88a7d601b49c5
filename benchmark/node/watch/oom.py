"""The kernel's OOM kills: they explain a SIGKILL that no process sent.

benchmark/fleet/scripts/start.sh counts them for the run as a whole, which cannot do so once it is killed.
"""

from __future__ import annotations

import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def oom_kills() -> int | None:
    """Return how many processes of this process's cgroup the OOM killer has killed so far; None: not known."""
    for path in _counters():
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return int(found[1])
    return None


class OomWatch:
    """Counts the OOM kills in this process's cgroup from now on."""

    def __init__(self) -> None:
        self._before = oom_kills()

    def kills(self) -> int | None:
        """Return the number of kills since; None: not known."""
        now = oom_kills()
        return None if now is None or self._before is None else max(0, now - self._before)

    def killer(self) -> str:
        """Return who sent a SIGKILL, in words that continue a sentence about the killed process."""
        if (kills := self.kills()) is None:
            return "; the kernel does that when memory runs out"
        return ", the kernel's OOM killer: memory ran out" if kills else ", and not by the OOM killer"


def _counters() -> list[Path]:
    """Return the possible files of the count: for cgroup v1, v2, and in a container that cannot see its own path."""
    try:
        own = OWN.read_text(encoding="utf-8")
    except OSError:
        own = ""
    first = re.search(r"^\d+:memory:/(.*)$", own, re.MULTILINE)
    second = re.search(r"^0::/(.*)$", own, re.MULTILINE)
    v1, v2 = CGROUPS / "memory", CGROUPS
    return [
        *([v1 / first[1] / "memory.oom_control"] if first else []),
        *([v2 / second[1] / "memory.events"] if second else []),
        v1 / "memory.oom_control",
        v2 / "memory.events",
    ]
