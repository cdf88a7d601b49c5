"""Read a node's clock over the connection that is open: round trips within one SSH session, some milliseconds each."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

from session import session_command

TRIPS = 8
# A node that has not answered within this answers no more.
PATIENCE_S = 5.0
# Nanoseconds since 1970 have 19 digits until the year 2286.
DIGITS = 19
# The node reads its clock once per line that it is sent.
LOOP = "while read -r line; do date +%s%N; done"

Shell = Callable[[str], tuple[int, str, str]]


def round_trips(connection: Any, shell: Shell) -> list[tuple[int, int, int]]:
    """Return (controller's clock before, node's clock, controller's clock after), in nanoseconds, for each round trip.

    One session serves all of them where the connection is OpenSSH or local, for starting a session takes far longer
    than a round trip. Elsewhere, or where that fails, each is a command of its own: right too, and less precise.
    """
    command = session_command(connection, LOOP)
    return (_within_a_session(command) if command else []) or _one_by_one(shell)


def _within_a_session(command: list[Any]) -> list[tuple[int, int, int]]:
    trips: list[tuple[int, int, int]] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as session:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while len(trips) < TRIPS and (trip := _trip(session, deadline)):
                trips.append(trip)
        except OSError:
            pass  # the session ended: what it told stands
        finally:
            session.kill()
    # The first one waited for the session to open.
    return trips[1:]


def _trip(session: subprocess.Popen[bytes], deadline: float) -> tuple[int, int, int] | None:
    if session.stdin is None or session.stdout is None:
        return None
    sent = time.time_ns()
    session.stdin.write(b"\n")
    told = b""
    while not told.endswith(b"\n") and len(told) <= DIGITS + 2:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([session.stdout], [], [], left)[0]:
            return None
        if not (more := session.stdout.read(64)):
            return None
        told += more
    received = time.time_ns()
    return (sent, int(told), received) if _nanoseconds(told.decode(errors="replace")) else None


def _one_by_one(shell: Shell) -> list[tuple[int, int, int]]:
    trips = []
    for _ in range(TRIPS):
        sent = time.time_ns()
        code, out, _ = shell("date +%s%N")
        received = time.time_ns()
        if code == 0 and _nanoseconds(out):
            trips.append((sent, int(out), received))
    return trips


def _nanoseconds(told: str) -> bool:
    return told.strip().isdecimal() and len(told.strip()) <= DIGITS
