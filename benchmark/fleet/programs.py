"""The shell scripts in `scripts/` that run on nodes: as one program or a command, and the message if one failed."""

from __future__ import annotations

import functools
import os
import shlex
from pathlib import Path

from benchmark.settings import Settings
from benchmark.unwritable import errno_in, remedy

SCRIPTS = Path(__file__).parent / "scripts"
# The scripts that converse.sh calls, and those that these call.
FUNCTIONS = ("find_environment", "owned", "start", "earlier", "pack", "stop", "clean")


@functools.cache
def program(script: str = "converse") -> str:
    """Return a script, preceded by those that it may call, each as a function that runs in a subshell."""
    functions = [f"{name}() (\n{_text(name)}\n)\n" for name in FUNCTIONS]
    # For the background shell of start.sh.
    return "".join([*functions, f"AWAIT_MACHINE={shlex.quote(_text('await_machine'))}\n", _text(script)])


def await_machine(settings: Settings, wait: bool) -> str:
    """Return the command that waits until no run measures on a machine, before provisioning it, or fails."""
    how, wait_s = "shared" if settings.benchmark_shared_machine else "alone", settings.benchmark_sync_timeout_s
    return shlex.join(["sh", "-c", _text("await_machine"), "await", how, str(wait_s if wait else 0), ""])


def _text(name: str) -> str:
    return (SCRIPTS / f"{name}.sh").read_text(encoding="utf-8")


def why_refused(script: str, said: str, on_node: str) -> str:
    """Return one sentence for the message of a failed script; `on_node`: the run's directory there."""
    if number := errno_in(said):
        what = f"{os.strerror(number)}: {on_node} on the node cannot be written to."
        return f"{what} {remedy(number, 'benchmark_work_dir')}"
    return f"{script} failed on the node: {' '.join(said.split())[-300:].rstrip('.')}."
