"""Users of a closed loop: threads, each of which does one thing after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def run_users(count: int, user: Callable[[threading.Event], None]) -> None:
    """Run that many users at once and return when all have ended; raises the first error of any user.

    An event tells each user when the others should end too.
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
        except BaseException as error:  # raised again in the waiting thread
            ended.put(error)

    # Daemons, waited for here, where signals arrive: a user may wait for an answer that never comes.
    for number in range(count):
        threading.Thread(target=run, name=f"user-{number}", daemon=True).start()
    try:
        for _ in range(count):
            if (error := ended.get()) is not None:
                raise error
    finally:
        stopped.set()
