"""Measure rows of a table in a separate process, so that the GPU's memory is freed."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

Row = dict[str, Any]

# Seconds for a process to end after SIGTERM: its server, or its playbook with the nodes, ends first.
END_S = 90


def rows_apart(measure: Callable[..., Iterator[Row]], *arguments: Any, limit_s: float | None = None) -> Iterator[Row]:
    """Yield the rows of `measure(*arguments)` as they come; an exception or a timeout is a row too."""
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
        yield {"note": f"stopped: not finished within {limit_s} s"}
    finally:
        if process.is_alive():
            process.terminate()
            process.join(END_S)
            process.kill()


def _send(measure: Callable[..., Iterator[Row]], arguments: tuple[Any, ...], sender: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *about: sys.exit("terminated"))
    try:
        for row in measure(*arguments):
            sender.send(row)
    except BaseException as error:  # becomes a row
        with suppress(OSError):  # the parent is gone
            sender.send({"note": f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]})
    finally:
        sender.close()
