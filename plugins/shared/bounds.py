"""What a node may cost the controller: a limit in time, in memory and on the disk for everything that is asked of it.

A worker is a process of its own, and so is every ssh and sftp that it starts: the kernel holds the limits, whatever
part of ansible-core is at work.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import checkout  # noqa: F401 # makes the package importable
from ansible.errors import AnsibleConnectionFailure
from interruption import end_own_children

from benchmark.files import MAX_SAMPLES_BYTES

# Above what a worker uses when it begins: a node's longest honest answer takes a fiftieth of it. Not more, for
# ansible-core copies all that has come each time that something comes.
MEMORY_BYTES = 64 * 2**20


class Late(AnsibleConnectionFailure):  # type: ignore[misc] # ansible-core has no types
    """The node took a command and did not answer: as good as gone, however alive its connection is."""


class TooMuch(Exception):
    """The node sent more than the controller takes."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Within, at most so many seconds, MEMORY_BYTES more of memory, and MAX_SAMPLES_BYTES in one file.

    Raises Late for a node that has not answered by then, and TooMuch for one that sends without end; the ssh that was
    at work is ended.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise Late(f"accepted a command but gave no answer within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with _limit(resource.RLIMIT_AS, _in_use() + MEMORY_BYTES), _limit(resource.RLIMIT_FSIZE, MAX_SAMPLES_BYTES):
            yield
    except Late:
        end_own_children()
        raise
    except MemoryError:
        end_own_children()
        raise TooMuch(
            f"The node sends too much: more than {MEMORY_BYTES >> 20} MiB where a few lines were expected."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _limit(what: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    if resource.RLIM_INFINITY not in (soft, hard):
        most = min(most, soft)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def _in_use() -> int:
    """Return the address space of this process in bytes; more than there is where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 1 << 40
    return pages * resource.getpagesize()
