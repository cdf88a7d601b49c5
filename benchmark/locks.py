"""File locks (flock), also on file systems without locks: Lustre without that option, some NFS and FUSE.

These locks only keep processes of this program apart. Without locks, they continue without.
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

# Errors of file systems without locks; EBADF is NFS's for a directory.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF})

Taken = Literal["taken", "busy", "no locks"]

# How long to wait for other writers in turn; a stopped process must not block all later ones.
PATIENCE_S = 60.0
_LOOK_S = 0.02


def take(descriptor: int, wait: bool = False) -> Taken:
    """Lock an open file exclusively until it is closed; with `wait` the result is never "busy"."""
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
    """A context that only one process of this program can be in for a directory, if its file system has locks.

    Raises OSError if the directory cannot be read, or if another process stays in it for too long.
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
