"""Locks of files (flock), also where a file system has none: Lustre without that option, some NFS and FUSE.

What is locked here only keeps processes of this program apart. Where there are no locks, they go on without.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

# What file systems without locks say; EBADF is what NFS says of a directory.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF})

Taken = Literal["taken", "busy", "no locks"]

# So long may others write one after the other; a process that is stopped must not hold up all that come later.
PATIENCE_S = 60.0
_LOOK_S = 0.02


def take(descriptor: int, wait: bool = False) -> Taken:
    """Lock an open file for this process alone, until it is closed; with `wait` it is never "busy"."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return "busy"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return "no locks"
    return "taken"


@contextmanager
def alone(directory: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Within, no other process of this program is in here for this directory, where its file system has locks.

    Raises OSError where the directory cannot be read, and where another one has been in here for so long.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + patience_s
        while take(descriptor) == "busy":
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, f"another process has been writing there for {patience_s:g} s")
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)
