"""Users of a closed loop: threads, each of which does one thing after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def run_users(count: int, user: Callable[[threading.Event], None]) -> None:
    """Be so many users at once and return when all have ended; raises what the first raised that could not go on.

    Each is told by an event that the others are to end too.
    """
    stopped = threading.Event()
    if count == 1:
        user(stopped)
        return
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            user(stopped)
            ended.put(None)
        except BaseException as error:  # raised again where it is waited for
            ended.put(error)

    # Daemons, and waited for here, where a signal is heard: a user may wait for an answer that never comes.
    for number in range(count):
        threading.Thread(target=run, name=f"user-{number}", daemon=True).start()
    try:
        for _ in range(count):
            if (error := ended.get()) is not None:
                raise error
    finally:
        stopped.set()
