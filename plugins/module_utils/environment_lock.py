"""An exclusive lock that also works on a file system without locks."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Without locks, a file serves as the lock. How often its holder touches it, and after how long without that the holder
# counts as gone, in seconds.
SHOW_S, GONE_S = 5, 60


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the lock: it also works between nodes with a shared home directory, and without file locks."""
    with lock.open("w") as file, ExitStack() as held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            held.enter_context(only_maker(lock.with_name(lock.name + ".held")))
        yield


@contextmanager
def only_maker(path: Path) -> Iterator[None]:
    """Wait until the file is gone, make it, and remove it afterwards; meanwhile touch it now and then."""
    seen: tuple[int, int] | None = None
    since = time.monotonic()
    while True:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            break
        with suppress(FileNotFoundError):
            # Clocks of nodes differ, so only a change of its time counts.
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
