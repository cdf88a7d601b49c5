"""The worker of a task and the ansible-playbook that it works for.

A worker outlives an ansible-playbook that is killed. It would go on to fetch, and to clean up, what somebody who
resumes the run is about to look at: it stops where it notices, and until then the other waits.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.utils.display import Display
from node_action import NodeFailure

from benchmark.locks import take

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
    """Hold a node's directory of the run on the controller. Raises NodeFailure where another process holds it.

    Where the file system has no locks, nobody does (`warn_without_locks`).
    """
    require_leader()
    descriptor = os.open(place, os.O_RDONLY)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while take(descriptor) == "busy":
            if time.monotonic() > deadline:
                raise NodeFailure(f"Another process has been working on {place} for {PATIENCE_S} s: end it first.")
            time.sleep(LOOK_S)
        yield
    finally:
        os.close(descriptor)


def warn_without_locks(run_dir: Path) -> None:
    """Say, once a run, where its directory is on a file system without locks, and what that means."""
    with tempfile.TemporaryFile(dir=run_dir) as file:
        if take(file.fileno()) == "no locks":
            Display().warning(
                f"{run_dir} is on a file system without file locks: the run goes on without. End an ansible-playbook "
                "that was killed, with its workers, before you resume its run, or set benchmark_results_dir to another "
                "disk."
            )
