"""End a process together with the reader of its output: an abandoned download would run for hours."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading


def end_with_reader() -> None:
    """From now on, end this process by SIGTERM once the other end of its standard output is closed.

    sshd closes it with the connection, for whatever reason that ends. A terminal or a file has no other end.
    """
    try:
        out = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return  # not a real file: this was not started as a process
    threading.Thread(target=_watch, args=(out,), daemon=True, name="end_with_reader").start()


def _watch(out: int) -> None:
    hung_up = select.poll()
    hung_up.register(out, 0)  # errors and hang-ups are always reported
    hung_up.poll()
    os.kill(os.getpid(), signal.SIGTERM)
