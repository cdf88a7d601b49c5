"""A lock that one process at a time holds, also on a file system without locks."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Where a file system has no locks, a file stands for one. How often its holder shows that it is there, and after how
# long without that the file is taken for one whose holder is gone, in seconds.
SHOW_S, GONE_S = 5, 60


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the lock, also against other nodes with the same home directory, and on a file system without locks."""
    with lock.open("w") as file, ExitStack() as held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            held.enter_context(only_maker(lock.with_name(lock.name + ".held")))
        yield


@contextmanager
def only_maker(path: Path) -> Iterator[None]:
    """Make a file, once it is not there, and remove it afterwards; in between show that somebody is here."""
    seen: tuple[int, int] | None = None
    since = time.monotonic()
    while True:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            break
        with suppress(FileNotFoundError):
            # Clocks of nodes differ: what counts is whether its time changes while this one waits.
            if (now := (path.stat().st_ino, path.stat().st_mtime_ns)) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > GONE_S:
                path.unlink()
                continue
        time.sleep(SHOW_S / 5)
    over = threading.Event()

    def show() -> None:
        while not over.wait(SHOW_S):
            with suppress(OSError):
                os.utime(path)

    shows = threading.Thread(target=show, daemon=True)
    shows.start()
    try:
        yield
    finally:
        over.set()
        shows.join()
        path.unlink(missing_ok=True)
