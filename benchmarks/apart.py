"""Rows of a table that are measured in a process of its own, which leaves the GPU as it found it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

Row = dict[str, Any]

# For a process that is told to end: a server, or a playbook with its nodes, has to end first.
END_S = 90


def rows_apart(measure: Callable[..., Iterator[Row]], *arguments: Any, limit_s: float | None = None) -> Iterator[Row]:
    """Yield the rows of `measure(*arguments)` as they come; what it raises, and that its time was up, is one too."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(measure, arguments, sender))
    process.start()
    sender.close()
    began = time.monotonic()
    try:
        while receiver.poll(None if limit_s is None else max(0.0, limit_s + began - time.monotonic())):
            try:
                row = receiver.recv()
            except EOFError:
                process.join(END_S)
                return
            yield row
        yield {"note": f"ended: not done within {limit_s} s"}
    finally:
        if process.is_alive():
            process.terminate()
            process.join(END_S)
            process.kill()


def _send(measure: Callable[..., Iterator[Row]], arguments: tuple[Any, ...], sender: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *about: sys.exit("told to end"))
    try:
        for row in measure(*arguments):
            sender.send(row)
    except BaseException as error:  # a row of its own; the others go on
        with suppress(OSError):  # nobody listens any more
            sender.send({"note": f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]})
    finally:
        sender.close()
