"""One run at a time on a machine: a claim that every user of this project sees there, whatever account or directory.

A claim is a file in /tmp that its run holds locked, and that says who measures with what. It ends with its process,
however that ends; a file that nobody holds means nothing. Nobody writes into another's, follows a link or waits for
what is no plain file. Claims are made one at a time, behind a door.
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

# Every user can write there, and nobody can remove another's files. fleet/scripts/await_machine.sh looks there too.
PLACE = Path("/tmp")  # noqa: S108 # see above
DOOR, CLAIMS = "llm-benchmark.door", "llm-benchmark-*.claim"
# What a run claims that computes on the CPU: all else that computes there disturbs it, and is disturbed.
CPU = "cpu"
# Making a claim takes a millisecond: whoever holds the door for longer is stopped, or no friend.
DOOR_S = 10
MOST_BYTES = 4096
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Claim:
    """What a run measures with; `words` is a sentence about it, without its end."""

    uses: tuple[str, ...]
    """`cpu`, or the UUIDs of GPUs."""
    shared: bool
    """Whether it lets others on that share too."""
    words: str

    def excludes(self, other: Claim) -> bool:
        """Return whether the two may not measure at the same time."""
        if self.shared and other.shared:
            return False
        return CPU in self.uses + other.uses or bool(set(self.uses) & set(other.uses))

    def text(self) -> str:
        """Return the content of its file, a line each: the sentence, what it uses, and whether it shares."""
        uses = " ".join(self.uses) if CPU in self.uses else f"gpus {' '.join(self.uses)}"
        return f"{self.words}\n{uses}\n{'shared' if self.shared else 'alone'}\n"

    @classmethod
    def parse(cls, text: str, user: str) -> Claim:
        """Return what a file says; of one that says nothing that all is used. `user`: whose file it is."""
        words, uses, shared = (*text.split("\n")[:3], "", "", "")[:3]
        kind, *gpus = uses.split() or [CPU]
        words = "".join(c for c in words if c.isprintable())[:300]
        known = tuple(gpus) if kind == "gpus" else (CPU,)
        return cls(known, shared == "shared", words or f"a run of {user} is measuring here")


def who_measures(run_id: str, owner: str) -> str:
    """Return the sentence of a claim: which run, whose, since when."""
    return f"run {run_id} of {owner} is measuring here since {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"


def claim_machine(claim: Claim, wait_s: float, waiting: Callable[[str], None], place: Path = PLACE) -> int | None:
    """Claim what a run measures with; wait so long for others, and say for whom.

    Returns the open file that holds the claim until this process ends. Where `place` takes no files or no locks there
    is none, and that is printed. Raises SetupError where another run still measures.
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
        print(f"No other run is kept away from this machine: {place}: {error.strerror}.", flush=True)
        return None


def _claim(claim: Claim, place: Path) -> int | tuple[Path, Claim]:
    """Make the claim and return its file, or the claim that excludes it."""
    with _door(place):
        for path, other in _held(place):
            if claim.excludes(other):
                return path, other
        path = place / CLAIMS.replace("*", secrets.token_hex(8))
        # Nothing that this process starts inherits it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whatever the umask: others are to read it.
        os.fchmod(descriptor, 0o644)
        with suppress(OSError):  # a full disk: it is held all the same
            os.write(descriptor, claim.text().encode()[:MOST_BYTES])
        return descriptor


def _held(place: Path) -> Iterator[tuple[Path, Claim]]:
    """Yield the claims that runs hold; files of this user's that nobody holds are removed."""
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
    """Let one process in at a time; for one that stays too long nobody waits."""
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
    """Return once nobody holds the claim, or after so long; it sleeps at the lock, so that it disturbs nobody."""
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
