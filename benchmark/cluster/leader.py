"""The process that leads a run, and whether it is still alive on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from benchmark.records import Controller, RunRecord


def controller(pid: int) -> Controller | None:
    """Return the process on this machine as recorded in run.json; None if there is none, or no /proc."""
    fields = _stat(pid)
    # Field 22 is the start time.
    return None if not fields else Controller(host=socket.gethostname(), pid=pid, started=int(fields[19]))


def leader_of(run: RunRecord) -> Controller | None:
    """Return the process that leads the last attempt if it is alive, on this machine, and not this process."""
    leader = run.attempts[-1].controller if run.attempts else None
    return leader if leader is not None and leader.pid != os.getpid() and is_there(leader) else None


def is_there(leader: Controller) -> bool:
    """Return whether that very process is alive on this machine."""
    return controller(leader.pid) == leader


def at_work(leader: Controller | None) -> bool:
    """Return whether a run with that leader is in progress. To processes that the leader starts, it has ended.

    Thus the summary that the leader makes at its end is one of an ended run.
    """
    return leader is not None and is_there(leader) and leader.pid not in _own_ancestors()


def _own_ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 1:
        yield pid
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from the third on; none if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # They follow the program's name, which is in parentheses.
    fields = stat.rpartition(")")[2].split()
    return [] if fields[0] == "Z" else fields
