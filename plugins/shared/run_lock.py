"""Locks that keep two ansible-playbooks from working on the same run.

A worker outlives an ansible-playbook that is killed. It could fetch and clean up files while another ansible-playbook
resumes the run: so it stops once it notices, and until then the other one waits.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.utils.display import Display
from node_action import NodeFailure

from benchmark.locks import take

# A worker checks for its parent more often than this.
PATIENCE_S = 60
LOOK_S, PARENT_LOOK_S = 0.1, 1.0
# For this worker: the module may be imported by the worker, or by ansible-playbook before it forks.
_PARENT = {"worker": 0, "pid": 0}


def _parent_is_gone() -> bool:
    worker, parent = os.getpid(), os.getppid()
    if _PARENT["worker"] != worker:
        _PARENT.update(worker=worker, pid=parent)
    return _PARENT["pid"] != parent


def require_parent() -> None:
    """Raise NodeFailure if the process that started this worker is gone."""
    if _parent_is_gone():
        raise NodeFailure("The ansible-playbook that this worker belongs to is gone.")


async def until_parent_is_gone() -> None:
    """Return once the process that started this worker is gone."""
    while not _parent_is_gone():
        await asyncio.sleep(PARENT_LOOK_S)


@contextmanager
def lock_node_dir(place: Path) -> Iterator[None]:
    """Lock a node's directory of the run on the controller. Raises NodeFailure if another process holds the lock.

    On a file system without locks it locks nothing (see `warn_without_locks`).
    """
    require_parent()
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
    """Warn, once per run, if its directory is on a file system without locks, and what that means."""
    with tempfile.TemporaryFile(dir=run_dir) as file:
        if take(file.fileno()) == "no locks":
            Display().warning(
                f"{run_dir} is on a file system without file locks: the run goes on without them. After an "
                "ansible-playbook was killed, end its workers before you resume its run, or set benchmark_results_dir "
                "to another disk."
            )
