"""Ctrl-C, from ansible-playbook to the workers that are at a node.

Left to itself ansible-core kills its workers, and the nodes measure on without anybody who fetches. Here the callback
`benchmark_interrupt` raises a flag and wakes the workers; each ends what it does at its node, and the play goes on to
the summary in its usual way: every node that did not deliver is a failed one, with its reason.
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

# Ansible-core and its workers have no other use for it.
WAKE = signal.SIGUSR1

T = TypeVar("T")


class Interrupted(BaseException):
    """The user has stopped the playbook; like KeyboardInterrupt, no `except Exception` may swallow it."""


def _flag() -> Path:
    # A directory of this ansible-playbook's own, which goes away with it.
    return Path(constants.DEFAULT_LOCAL_TMP) / "interrupted"


def interrupted_by() -> str:
    """Return the name of the signal that stopped the playbook; empty: none did."""
    try:
        return _flag().read_text(encoding="utf-8")
    except OSError:
        return ""


def ignore_wake() -> None:
    """Before workers are forked: one that is not at a node, or not yet, is not to die of being woken."""
    signal.signal(WAKE, signal.SIG_IGN)


def interrupt_workers(number: int) -> None:
    """Raise the flag for whoever begins from now on, and wake those that are at it."""
    _flag().write_text(signal.Signals(number).name, encoding="utf-8")
    for worker in multiprocessing.active_children():
        if worker.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, WAKE)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, an interruption raises Interrupted, once; at its beginning too, where it came before."""
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
    """End the ssh that was at work for this worker: whoever waits for nothing any more leaves nobody waiting.

    A worker leads a process group of its own. A master connection is not in it, and stays for what is to come.
    """
    if os.getpgrp() == os.getpid():
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def run_interruptible(work: Coroutine[Any, Any, T], interrupt: Callable[[], None] | None = None) -> T:
    """Run asyncio's work to its end; `interrupt` is called in its loop when this worker is woken, or was before.

    Without it the work is cancelled, and Interrupted raised. A handler that raises, as `interruptible` has, would be
    swallowed by asyncio in the middle of a callback.
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
            # Without a moment in which being woken would end this worker.
            signal.pthread_sigmask(signal.SIG_BLOCK, {WAKE})
            loop.remove_signal_handler(WAKE)

    before = signal.getsignal(WAKE)
    try:
        return asyncio.run(main())
    finally:
        signal.signal(WAKE, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {WAKE})
