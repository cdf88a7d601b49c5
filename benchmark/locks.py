"""Locks of files (flock), also where a file system has none: Lustre without that option, some NFS and FUSE.

What is locked here only keeps processes of this program apart. Where there are no locks, they go on without.
"""

from __future__ import annotations

import errno
import fcntl
from typing import Literal

# What file systems without locks say; EBADF is what NFS says of a directory.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EBADF})

Taken = Literal["taken", "busy", "no locks"]


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
