"""What is left of a run on its nodes: the nodes of these tests are processes and directories of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Long enough for a process that was told to end; nothing here asks it to be shorter.
PATIENCE_S = 30.0


def processes_of(directory: Path) -> dict[int, str]:
    """Return pid and command line of every process that works in the directory or was started with a path in it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            works_in = str((entry / "cwd").readlink())
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # it has ended meanwhile
        inside = works_in == str(directory) or works_in.startswith(f"{directory}/") or f"{directory}/" in command
        if inside and state != "Z":
            found[int(entry.name)] = command
    return found


def assert_nothing_runs(directory: Path) -> None:
    """Assert that no process of a run is left on any node whose home or work lies in the directory."""
    deadline = time.monotonic() + PATIENCE_S
    while left := processes_of(directory):
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.1)
