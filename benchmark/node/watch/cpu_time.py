"""A run's CPU time: how long its threads waited for a core, and how long quotas or a hypervisor held it back.

Read from /proc and the control groups, before and after: nothing extra runs during the measurement.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from benchmark.records import CpuTime

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
NS = 1e9


@dataclass(frozen=True)
class Reading:
    """The counters at one moment."""

    at_s: float
    used_s: float
    waited_s: float | None
    held_s: float | None
    stolen_s: float | None


def read() -> Reading:
    """Return the counters now."""
    times = os.times()
    used_s = times.user + times.system + times.children_user + times.children_system
    return Reading(time.monotonic(), used_s, _waited_s(), held_s(), stolen_s())


def between(before: Reading, after: Reading) -> CpuTime:
    """Return the run's CPU time between two readings. Threads that have ended are no longer counted."""
    return CpuTime(
        wall_s=after.at_s - before.at_s,
        used_s=max(0.0, after.used_s - before.used_s),
        waited_s=_more(before.waited_s, after.waited_s),
        held_s=_more(before.held_s, after.held_s),
        quota_cpus=quota_cpus(),
        stolen_s=_more(before.stolen_s, after.stolen_s),
    )


def _more(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _waited_s(proc: Path = PROC) -> float | None:
    """Return how long this process' threads were runnable without a core (the second figure of schedstat)."""
    waited, known = 0, False
    for path in (proc / "self" / "task").glob("*/schedstat"):
        words = _text(path).split()
        if len(words) == 3:
            waited, known = waited + int(words[1]), True
    return waited / NS if known else None


def groups(proc: Path = PROC, cgroup: Path = CGROUP) -> list[Path]:
    """Return the directories of control groups that may limit the CPU: this process' own first, then its parents."""
    found: list[Path] = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = [cgroup / name for name in (controllers, "cpu") if controllers and (cgroup / name).is_dir()]
        root = mounted[0] if mounted else cgroup
        path = root / own.lstrip("/")
        while path == root or root in path.parents:
            found.append(path)
            path = path.parent
    return found


def quota_cpus(proc: Path = PROC, cgroup: Path = CGROUP) -> float | None:
    """Return how many CPUs the run may use by quota: the tightest of its control groups; None: there is no quota."""
    quotas = []
    for path in groups(proc, cgroup):
        words = _text(path / "cpu.max").split() or [
            _text(path / "cpu.cfs_quota_us").strip(), _text(path / "cpu.cfs_period_us").strip()
        ]  # fmt: skip
        if len(words) == 2 and all(re.fullmatch(r"[0-9]+", word) and int(word) > 0 for word in words):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def held_s(proc: Path = PROC, cgroup: Path = CGROUP) -> float | None:
    """Return how long quotas have throttled this process' control groups; the largest value of them."""
    held = []
    for path in groups(proc, cgroup):
        reported = dict(line.split(maxsplit=1) for line in _text(path / "cpu.stat").splitlines() if " " in line)
        if reported.get("throttled_usec", "").isdecimal():
            held.append(int(reported["throttled_usec"]) / 1e6)
        elif reported.get("throttled_time", "").isdecimal():
            held.append(int(reported["throttled_time"]) / NS)
    return max(held, default=None)


def stolen_s(proc: Path = PROC) -> float | None:
    """Return how long runnable CPUs of this machine were taken by its hypervisor, in total.

    `steal` of /proc/stat, see proc(5): 0 without a hypervisor, or if it does not report it.
    """
    words = _text(proc / "stat").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu" or not words[8].isdecimal():
        return None
    return int(words[8]) / os.sysconf("SC_CLK_TCK")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
