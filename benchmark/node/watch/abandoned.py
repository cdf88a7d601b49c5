"""End with whoever reads what this process prints: a download that nobody waits for would go on for hours."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading


def end_with_reader() -> None:
    """From now on, end this process by SIGTERM once the other end of its standard output is gone.

    sshd closes it with the connection, whether that broke, was closed, or was killed. A terminal or a file has no
    such end.
    """
    try:
        out = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return  # not a real file: nobody started this as a process
    threading.Thread(target=_watch, args=(out,), daemon=True, name="end_with_reader").start()


def _watch(out: int) -> None:
    hung_up = select.poll()
    hung_up.register(out, 0)  # errors and hang-ups are reported without being asked for
    hung_up.poll()
    os.kill(os.getpid(), signal.SIGTERM)
