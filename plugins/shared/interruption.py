"""Pass Ctrl-C from ansible-playbook to its workers.

By default ansible-core kills its workers, and the nodes go on measuring with no one to fetch the results. Instead the
callback `benchmark_interrupt` sets a flag and wakes the workers; each ends its work on its node, and the play goes on
to the summary as usual: every node without a result is a failed node, with its reason.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from ansible import constants

# ansible-core and its workers do not use it otherwise.
WAKE = signal.SIGUSR1

T = TypeVar("T")


class Interrupted(BaseException):
    """The user has stopped the playbook. Like KeyboardInterrupt, it escapes every `except Exception`."""


def _flag() -> Path:
    # In this ansible-playbook's own directory, which goes away with it.
    return Path(constants.DEFAULT_LOCAL_TMP) / "interrupted"


def interrupted_by() -> str:
    """Return the name of the signal that stopped the playbook; empty: none."""
    try:
        return _flag().read_text(encoding="utf-8")
    except OSError:
        return ""


def ignore_wake() -> None:
    """Ignore the wake signal; called before workers are forked, so that it does not kill those not yet at a node."""
    signal.signal(WAKE, signal.SIG_IGN)


def interrupt_workers(number: int) -> None:
    """Set the flag for workers that begin later, and wake those at work."""
    _flag().write_text(signal.Signals(number).name, encoding="utf-8")
    for worker in multiprocessing.active_children():
        if worker.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, WAKE)


@contextmanager
def interruptible() -> Iterator[None]:
    """Make an interruption raise Interrupted, once; at the beginning if it came before."""
    inside = True

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(WAKE, signal.SIG_IGN)
        if inside:
            raise Interrupted

    signal.signal(WAKE, stop)
    try:
        if interrupted_by():
            raise Interrupted
        yield
    finally:
        inside = False
        signal.signal(WAKE, signal.SIG_IGN)


def end_own_children() -> None:
    """End the ssh processes of this worker, so that none is left waiting.

    A worker leads its own process group. A master connection is not in it, and stays for later tasks.
    """
    if os.getpgrp() == os.getpid():
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def run_interruptible(work: Coroutine[Any, Any, T], interrupt: Callable[[], None] | None = None) -> T:
    """Run a coroutine to its end; `interrupt` is called in its loop if this worker is woken, or was before.

    Without `interrupt` the work is cancelled, and Interrupted raised. A handler that raises, as in `interruptible`,
    would be swallowed by asyncio in the middle of a callback.
    """

    async def main() -> T:
        task = asyncio.ensure_future(work)
        stop = interrupt or task.cancel
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(WAKE, stop)
        if interrupted_by():
            loop.call_soon(stop)
        try:
            return await task
        except asyncio.CancelledError:
            raise Interrupted from None
        finally:
            # So that at no moment the wake signal would end this worker.
            signal.pthread_sigmask(signal.SIG_BLOCK, {WAKE})
            loop.remove_signal_handler(WAKE)

    before = signal.getsignal(WAKE)
    try:
        return asyncio.run(main())
    finally:
        signal.signal(WAKE, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {WAKE})
