"""Less of the CPU for one node: a quota of a control group; where none can be made, one core that others want too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Version 1 and version 2 of the control groups: where a group is made, the file, and 5 ms of every 100.
KINDS = (
    (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "5000", "-1"),
    (Path("/sys/fs/cgroup"), "cpu.max", "5000 100000", "max 100000"),
)
SPINNERS = 8


class CpuQuota:
    """Holds processes; they get a twentieth of a core from `limit` to `lift`."""

    def __init__(self, name: str) -> None:
        self._spinners: list[subprocess.Popen[bytes]] = []
        self._group: Path | None = None
        self._core = min(os.sched_getaffinity(0))
        for parent, self._file, self._tight, self._loose in KINDS:
            group = parent / name
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / self._file).exists():
                self._group = group
                return
            group.rmdir()

    def put(self, pid: int) -> None:
        """Take a process in; what it starts from now on is in too."""
        if self._group is not None:
            (self._group / "cgroup.procs").write_text(str(pid))
        else:
            os.sched_setaffinity(pid, {self._core})

    def limit(self) -> None:
        """Begin to hold them back."""
        if self._group is not None:
            (self._group / self._file).write_text(self._tight)
            return
        spin = f"import os; os.sched_setaffinity(0, {{{self._core}}})\nwhile True: pass"
        self._spinners = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(SPINNERS)]

    def held(self) -> list[int]:
        """Return which processes are held back; none where they share a core instead."""
        return [int(pid) for pid in (self._group / "cgroup.procs").read_text().split()] if self._group else []

    def lift(self) -> None:
        """Hold them back no more."""
        if self._group is not None:
            (self._group / self._file).write_text(self._loose)
        for spinner in self._spinners:
            spinner.kill()
            spinner.wait()
        self._spinners = []

    def close(self) -> None:
        """Lift, and remove the group; its processes have to have ended."""
        self.lift()
        if self._group is not None:
            for pid in self.held():
                (self._group.parent / "cgroup.procs").write_text(str(pid))
            self._group.rmdir()
