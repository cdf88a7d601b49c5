"""One run at a time on a machine: a claim that all users of this project on the machine see.

A claim is a file in /tmp that its run holds locked; its content says which run uses what. It ends with its process,
however that ends; a file without a lock means nothing. The code never writes to another run's file, follows no links,
and never waits for anything that is not a regular file. Claims are made one at a time, under a lock called the door.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmark.errors import SetupError

# All users can write there, but not remove each other's files. fleet/scripts/await_machine.sh uses it too.
PLACE = Path("/tmp")  # noqa: S108 # see above
DOOR, CLAIMS = "llm-benchmark.door", "llm-benchmark-*.claim"
# Claimed by a run on the CPU: it disturbs, and is disturbed by, everything else on the machine.
CPU = "cpu"
# Making a claim takes a millisecond: a process that holds the door for longer is stopped, or hostile.
DOOR_S = 10
MOST_BYTES = 4096
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Claim:
    """What a run uses; `words` is a sentence about it, without the full stop."""

    uses: tuple[str, ...]
    """`cpu`, or the UUIDs of GPUs."""
    shared: bool
    """Whether other runs that share may run at the same time."""
    words: str

    def excludes(self, other: Claim) -> bool:
        """Return whether the two must not measure at the same time."""
        if self.shared and other.shared:
            return False
        return CPU in self.uses + other.uses or bool(set(self.uses) & set(other.uses))

    def text(self) -> str:
        """Return the content of its file, three lines: the sentence, what it uses, and whether it shares."""
        uses = " ".join(self.uses) if CPU in self.uses else f"gpus {' '.join(self.uses)}"
        return f"{self.words}\n{uses}\n{'shared' if self.shared else 'alone'}\n"

    @classmethod
    def parse(cls, text: str, user: str) -> Claim:
        """Parse a file's content; if it is unreadable, the run counts as using everything. `user`: the file's owner."""
        words, uses, shared = (*text.split("\n")[:3], "", "", "")[:3]
        kind, *gpus = uses.split() or [CPU]
        words = "".join(c for c in words if c.isprintable())[:300]
        known = tuple(gpus) if kind == "gpus" else (CPU,)
        return cls(known, shared == "shared", words or f"a run of {user} is measuring here")


def who_measures(run_id: str, owner: str) -> str:
    """Return the sentence of a claim: which run, of which user, since when."""
    return f"run {run_id} of {owner} has been measuring here since {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"


def claim_machine(claim: Claim, wait_s: float, waiting: Callable[[str], None], place: Path = PLACE) -> int | None:
    """Claim what a run uses; wait up to `wait_s` seconds for other runs, calling `waiting` with their sentences.

    Returns the open file that holds the claim until this process ends. If `place` does not support files or locks,
    prints that and returns None. Raises SetupError if another run is still measuring.
    """
    deadline = time.monotonic() + wait_s
    try:
        while not isinstance(other := _claim(claim, place), int):
            with suppress(FileNotFoundError):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    limit = f", after waiting {wait_s:g} s (benchmark_sync_timeout_s)" if wait_s else ""
                    raise SetupError(f"Not alone: {other[1].words}{limit or ' (benchmark_busy is fail)'}.")
                waiting(other[1].words)
                _await_end(other[0], left_s)
        return other
    except OSError as error:
        print(f"Other runs cannot be kept away from this machine: {place}: {error.strerror}.", flush=True)
        return None


def _claim(claim: Claim, place: Path) -> int | tuple[Path, Claim]:
    """Make the claim and return its file, or return the claim that excludes it."""
    with _door(place):
        for path, other in _held(place):
            if claim.excludes(other):
                return path, other
        path = place / CLAIMS.replace("*", secrets.token_hex(8))
        # Not inherited by child processes.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Readable for all users, whatever the umask.
        os.fchmod(descriptor, 0o644)
        with suppress(OSError):  # a full disk: the claim holds without its content
            os.write(descriptor, claim.text().encode()[:MOST_BYTES])
        return descriptor


def _held(place: Path) -> Iterator[tuple[Path, Claim]]:
    """Yield the claims that runs hold; remove this user's files that are not locked."""
    for path in sorted(place.glob(CLAIMS)):
        try:
            descriptor = os.open(path, _READ)
        except OSError:
            continue
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.read(descriptor, MOST_BYTES).decode(errors="replace")
                yield path, Claim.parse(text, _name(status.st_uid))
            else:
                if status.st_uid == os.geteuid():
                    path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def _door(place: Path) -> Iterator[None]:
    """Admit one process at a time; if one holds the lock for too long, continue without it."""
    path, until = place / DOOR, time.monotonic() + DOOR_S
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    descriptor = os.open(path, _READ)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _await_end(path: Path, within_s: float) -> None:
    """Return once the claim is released, or after `within_s`; sleeps at the lock, so that it takes no CPU time."""
    descriptor = os.open(path, _READ)
    released = threading.Event()

    def sleep_at_the_lock() -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.close(descriptor)
        released.set()

    threading.Thread(target=sleep_at_the_lock, daemon=True).start()
    released.wait(within_s)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
