"""What the kernel has killed for want of memory: what a SIGKILL was for that nobody sent.

benchmark/fleet/scripts/start.sh counts the same for the run as a whole, which cannot do so itself once it is killed.
"""

from __future__ import annotations

import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def oom_kills() -> int | None:
    """Return how many processes of this process's cgroup the OOM killer has ended so far; None: nobody says."""
    for path in _counters():
        try:
            found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return int(found[1])
    return None


class OomWatch:
    """What the OOM killer does from now on to processes of this process's cgroup."""

    def __init__(self) -> None:
        self._before = oom_kills()

    def kills(self) -> int | None:
        """Return how many it has ended since; None: nobody says."""
        now = oom_kills()
        return None if now is None or self._before is None else max(0, now - self._before)

    def killer(self) -> str:
        """Return who sent a SIGKILL, in words that go on a sentence about what it ended."""
        if (kills := self.kills()) is None:
            return "; the kernel does that when memory runs out"
        return ", the kernel's OOM killer: memory ran out" if kills else ", and not by the OOM killer"


def _counters() -> list[Path]:
    """Return where the count may stand: cgroup v1, v2, and within a container that does not see its own place."""
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
