"""The worker of a task and the ansible-playbook that it works for.

A worker outlives an ansible-playbook that is killed. It would go on to fetch, and to clean up, what somebody who
resumes the run is about to look at: it stops where it notices, and until then the other waits.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_action import NodeFailure

# A worker that waits for a node looks up more often than this.
PATIENCE_S = 60
LOOK_S = 0.1
# Of this worker: the module is first imported by it, or by ansible-playbook itself before it forks.
_LEADER = {"worker": 0, "pid": 0}


def require_leader() -> None:
    """Raise NodeFailure where the process that started this worker is gone."""
    worker, leader = os.getpid(), os.getppid()
    if _LEADER["worker"] != worker:
        _LEADER.update(worker=worker, pid=leader)
    if _LEADER["pid"] != leader:
        raise NodeFailure("The ansible-playbook that this worker belongs to is gone.")


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold a node's directory of the run on the controller. Raises NodeFailure where another process holds it."""
    require_leader()
    descriptor = os.open(place, os.O_RDONLY)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise NodeFailure(f"Another process has been working on {place} for {PATIENCE_S} s: end it first.")
            time.sleep(LOOK_S)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
