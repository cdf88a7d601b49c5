"""Limit what a node can cost the controller: in time, memory and disk space.

A worker and every ssh and sftp that it starts are separate processes, so the kernel enforces the limits, whatever part
of ansible-core is at work.
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

# On top of a worker's memory at the beginning: fifty times the longest legitimate answer of a node. Not more, since
# ansible-core copies all received data whenever more arrives.
MEMORY_BYTES = 64 * 2**20


class Late(AnsibleConnectionFailure):  # type: ignore[misc] # ansible-core has no types
    """The node accepted a command and did not answer: it counts as lost, even with a live connection."""


class TooMuch(Exception):
    """The node sent more than the controller accepts."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Allow at most this many seconds, MEMORY_BYTES more memory, and MAX_SAMPLES_BYTES in one file.

    Raises Late if the node has not answered by then, and TooMuch if it sends too much; ends the ssh at work.
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
    """Return the address space of this process in bytes; a huge number if the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 1 << 40
    return pages * resource.getpagesize()
