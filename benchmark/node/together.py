"""Begin to measure at the time that the controller agreed on with all nodes.

The node says that it is ready with one file in its run's directory and is sent the time of its start with another. Both
are renamed into place, so that neither is ever seen half; whoever puts the second rings the bell.
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

# How often the node looks for the word to start, should nobody ring; and where a file system has no named pipes.
LOOK_S, DEAF_LOOK_S = 5.0, 0.1
# And how often what it waits beside is looked at: a server that died is to be known here before what it brought down
# elsewhere is, or that is named in its place.
CHECK_S = 0.25
# Further ahead than the controller puts any start (`MOST_MARGIN_S` in benchmark/fleet/rendezvous.py).
MOST_AHEAD_S = 300


@dataclass(frozen=True)
class Start:
    """An agreed start: by the node's wall clock, as it was sent, and on the clock of the run (`now_ns`)."""

    unix_ns: int
    at_ns: int


def wait_for_turn(directory: Path, wait_s: float, environment: Environment | None, starting: Lock) -> None:
    """Report that this node is ready, and what it is; return once it is this node's turn to measure alone.

    Releases `starting`. Raises RunError where the word does not come within `wait_s` seconds.
    """
    write_atomic(directory / READY, environment.model_dump_json() if environment else "")
    starting.release()
    wait_for_word(directory / TURN, wait_s)


def end_turn(directory: Path, turn: Lock) -> None:
    """Report that this node has measured alone; releases `turn`, for which `converse.sh` waits."""
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
    """Report that this node is ready for a repeat, and what it is; return the start once it has come.

    What is to be done before it, and whatever touches the disk, is done in the time that is left.

    Releases `starting`, for which `converse.sh` waits. `check` is called every `CHECK_S` and raises what ends the wait.

    Raises RunError where it does not come within `wait_s` seconds.
    """
    write_atomic(directory / of_repeat(READY, repeat), environment.model_dump_json() if environment else "")
    starting.release()
    go = directory / of_repeat(GO, repeat)
    left = "Nothing was measured." if repeat == 1 else "What was measured before is kept."
    wait_for_word(go, wait_s, check, left)
    unix_ns = int(go.read_text(encoding="utf-8"))
    ahead_ns = unix_ns - time.time_ns()
    if ahead_ns > MOST_AHEAD_S * 1e9:
        raise RunError(
            f"The agreed start is {ahead_ns / 1e9:.0f} s away by this node's clock, which was set back after the "
            f"controller had read it: what sets it there? {left}"
        )
    # Converted once: a wall clock that is set while the node waits moves nothing.
    return Start(unix_ns, now_ns() + ahead_ns)


def end_starts(directory: Path, starting: Lock, repeat: int) -> None:
    """Report that this node takes part in no repeat from this one on; releases `starting`."""
    write_atomic(directory / of_repeat(READY, repeat), OVER)
    starting.release()


def sleep_until(at_ns: int) -> None:
    """Return at that time of `now_ns`, or at once where it has passed.

    The kernel wakes it, some 0.1 ms late; waiting awake would be closer, and would take the core from what else begins.
    """
    while (left_ns := at_ns - now_ns()) > 0:
        time.sleep(left_ns / 1e9)


def wait_for_word(
    word: Path, wait_s: float, check: Callable[[], None] | None = None, left: str = "Nothing was measured."
) -> None:
    """Return once the controller has put that word; `check` is called every `CHECK_S` and raises what ends the wait.

    Raises RunError after `wait_s` seconds. It waits asleep: hundreds of nodes that share a machine, each looking ten
    times a second, would keep it busy.
    """
    deadline_ns = now_ns() + int(wait_s * 1e9)
    bell = word.with_name(BELL)
    with ExitStack() as stack:
        pipes = []
        with suppress(OSError):
            os.mkfifo(bell)
            stack.callback(bell.unlink, missing_ok=True)
            # For writing too: as long as somebody can write, a pipe has no end, which select would tell like a ring.
            pipes = [os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)]
            stack.callback(os.close, pipes[0])
        while not word.exists():
            if now_ns() > deadline_ns:
                raise RunError(f"Ready, but no start time came within {wait_s:g} s: did the controller go away? {left}")
            look_s = (CHECK_S if check else LOOK_S) if pipes else DEAF_LOOK_S
            if check:
                check()
            if select.select(pipes, [], [], min(look_s, max(0.0, (deadline_ns - now_ns()) / 1e9)))[0]:
                os.read(pipes[0], select.PIPE_BUF)
