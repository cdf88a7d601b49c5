"""Begin measuring at the time that the controller agreed on with all nodes.

The node reports that it is ready with one file in its run's directory, and receives its start time in another. Both are
renamed into place, so that neither is ever read half-written; the writer of the second rings the bell, a named pipe.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import RunError
from benchmark.files import write_atomic
from benchmark.node.interfaces import now_ns
from benchmark.node.lock import Lock
from benchmark.records import Environment
from benchmark.rundir import BELL, GO, OVER, READY, TURN, TURN_OVER, of_repeat

# How often the node checks for the start without a bell; and on file systems without named pipes.
LOOK_S, DEAF_LOOK_S = 5.0, 0.1
# How often its own server is checked meanwhile: a server that died must be noticed here before its effects are noticed
# elsewhere, or those would be reported as the cause.
CHECK_S = 0.25
# Further ahead than any start the controller sets (`MOST_MARGIN_S` in benchmark/fleet/rendezvous.py).
MOST_AHEAD_S = 300


@dataclass(frozen=True)
class Start:
    """An agreed start: on the node's wall clock, as it was sent, and on the clock of the run (`now_ns`)."""

    unix_ns: int
    at_ns: int


def wait_for_turn(directory: Path, wait_s: float, environment: Environment | None, starting: Lock) -> None:
    """Report that this node is ready, with its environment; return once it is this node's turn to measure alone.

    Releases `starting`. Raises RunError if its turn does not come within `wait_s` seconds.
    """
    write_atomic(directory / READY, environment.model_dump_json() if environment else "")
    starting.release()
    wait_for_word(directory / TURN, wait_s)


def end_turn(directory: Path, turn: Lock) -> None:
    """Report that this node has measured alone; release `turn`, which `converse.sh` waits for."""
    write_atomic(directory / TURN_OVER, "")
    turn.release()


def wait_for_start(
    directory: Path,
    wait_s: float,
    environment: Environment | None,
    starting: Lock,
    repeat: int = 1,
    check: Callable[[], None] | None = None,
) -> Start:
    """Report that this node is ready for a repeat, with its environment; return the start once it has arrived.

    Preparations and everything that uses the disk are done in the time that is left until then.

    Releases `starting`, which `converse.sh` waits for. `check` is called every `CHECK_S`; its exception ends the wait.

    Raises RunError if the start does not arrive within `wait_s` seconds.
    """
    write_atomic(directory / of_repeat(READY, repeat), environment.model_dump_json() if environment else "")
    starting.release()
    go = directory / of_repeat(GO, repeat)
    left = "Nothing was measured." if repeat == 1 else "Earlier measurements are kept."
    wait_for_word(go, wait_s, check, left)
    unix_ns = int(go.read_text(encoding="utf-8"))
    ahead_ns = unix_ns - time.time_ns()
    if ahead_ns > MOST_AHEAD_S * 1e9:
        raise RunError(
            f"The agreed start is {ahead_ns / 1e9:.0f} s away by this node's clock, which was set back after the "
            f"controller had read it: check what sets this clock. {left}"
        )
    # Converted once, so that setting the wall clock meanwhile has no effect.
    return Start(unix_ns, now_ns() + ahead_ns)


def end_starts(directory: Path, starting: Lock, repeat: int) -> None:
    """Report that this node takes part in no repeat from this one on; release `starting`."""
    write_atomic(directory / of_repeat(READY, repeat), OVER)
    starting.release()


def sleep_until(at_ns: int) -> None:
    """Return at that time of `now_ns`, or at once if it has passed.

    The kernel wakes the thread about 0.1 ms late; a busy wait would be closer, but would occupy a core.
    """
    while (left_ns := at_ns - now_ns()) > 0:
        time.sleep(left_ns / 1e9)


def wait_for_word(
    word: Path, wait_s: float, check: Callable[[], None] | None = None, left: str = "Nothing was measured."
) -> None:
    """Return once the controller has written that file; `check` is called every `CHECK_S`; its exception ends the wait.

    Raises RunError after `wait_s` seconds. It sleeps meanwhile: hundreds of nodes that share a machine, each checking
    ten times a second, would keep it busy.
    """
    deadline_ns = now_ns() + int(wait_s * 1e9)
    bell = word.with_name(BELL)
    with ExitStack() as stack:
        pipes = []
        with suppress(OSError):
            os.mkfifo(bell)
            stack.callback(bell.unlink, missing_ok=True)
            # Open for writing too: without a writer the pipe would be at its end, which select reports like a ring.
            pipes = [os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)]
            stack.callback(os.close, pipes[0])
        while not word.exists():
            if now_ns() > deadline_ns:
                raise RunError(f"Ready, but no start time came within {wait_s:g} s: did the controller stop? {left}")
            look_s = (CHECK_S if check else LOOK_S) if pipes else DEAF_LOOK_S
            if check:
                check()
            if select.select(pipes, [], [], min(look_s, max(0.0, (deadline_ns - now_ns()) / 1e9)))[0]:
                os.read(pipes[0], select.PIPE_BUF)
