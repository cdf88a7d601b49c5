"""Run a server's command, and make sure that none of its processes outlives the process that started it.

    python -I keeper.py PARENT_PID GRACE_S ENDED COMMAND

It is a separate process, because no process can clean up after its own SIGKILL. It ends the command's process group,
and the processes that left that group, when PARENT_PID is gone (however it ended), on SIGTERM, or when the command
itself ends: first with SIGTERM, after GRACE_S seconds with SIGKILL. Its exit code is the command's, or 128 + the signal
that ended the command. The file ENDED gets the time at which the command ended or was stopped: in nanoseconds, by the
node's clock.

The command has its own temporary directory (TMPDIR), which is removed with it: servers leave sockets and files there.

Only the standard library is imported, so that it starts in a few hundredths of a second.
"""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

POLL_S = 0.1
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# Time for Python's resource tracker to remove shared memory after the processes that share it have ended.
TRACKER_S = 2.0
# Longest parent of the temporary directory: a socket's path has at most 107 (unix(7)), and a UUID may be its name.
MOST_CHARACTERS = 45


def keep(parent: int, grace_s: float, ended: Path, command: str) -> int:
    """Run `command` through the shell until it ends or must be stopped; note when, and return its exit code."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    # The command's orphans become children of this process and not of init: that finds those that left the group.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with _temporary() as variables:
        server = subprocess.Popen(  # noqa: S602
            command, shell=True, stdin=subprocess.DEVNULL, start_new_session=True, env=variables
        )
        while server.poll() is None and not stopped and os.getppid() == parent:
            time.sleep(POLL_S)
        with suppress(OSError):  # a full disk
            ended.write_text(str(time.time_ns()))
        _end_group(server, grace_s)
        _end_orphans()
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


@contextmanager
def _temporary() -> Iterator[dict[str, str]]:
    """Yield an environment that names a new temporary directory, which is removed afterwards."""
    variables, made = {**os.environ}, ""
    with suppress(OSError):  # the server reports better what is wrong there
        place = tempfile.gettempdir()
        short = place if len(os.fsencode(place)) <= MOST_CHARACTERS else "/tmp"  # noqa: S108 # mkdtemp makes it
        made = tempfile.mkdtemp(prefix="llm-benchmark-", dir=short)
        # Reuse what torch compiled for an earlier start.
        kept = {"TORCHINDUCTOR_CACHE_DIR": f"{place}/torchinductor_{_user()}"}
        variables = {**kept, **os.environ, "TMPDIR": made}
    try:
        yield variables
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container that runs as an arbitrary user id
        return f"uid_{os.getuid()}"


def _end_group(server: subprocess.Popen[bytes], grace_s: float) -> None:
    # The group may outlive its leader, and its dead processes count as members until they are waited for.
    _signal_group(server.pid, signal.SIGTERM)
    if not _gone(server, grace_s):
        for member, group in _processes(2):
            if group == server.pid and not _tracks_resources(member):
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
        _gone(server, TRACKER_S)
    _signal_group(server.pid, signal.SIGKILL)
    server.wait()


def _gone(server: subprocess.Popen[bytes], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        server.poll()
        _reap(server.pid)
        if not _signal_group(server.pid, 0):
            return True
        time.sleep(POLL_S)
    return False


def _tracks_resources(process: int) -> bool:
    """Return whether a process is Python's resource tracker, which removes shared memory after its last user."""
    with suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def _signal_group(group: int, number: int) -> bool:
    """Signal a process group; return whether it exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _end_orphans() -> None:
    while children := list(_children()):
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _reap()
        time.sleep(POLL_S)


def _reap(but: int = 0) -> None:
    for child in _children():
        if child != but:
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def _children() -> Iterator[int]:
    return (process for process, parent in _processes(1) if parent == os.getpid())


def _processes(field: int) -> Iterator[tuple[int, int]]:
    """Yield each process with a field of /proc/PID/stat, counted after its name: 1 is its parent, 2 its group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # pid (name) state ppid pgrp ...; the name may contain anything, even parentheses.
            yield int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[field])


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
