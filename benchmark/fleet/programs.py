"""The shell that runs on nodes, from `scripts/`: as one text or a command, and what is said of one that failed."""

from __future__ import annotations

import functools
import os
import shlex
from pathlib import Path

from benchmark.settings import Settings
from benchmark.unwritable import errno_in, remedy

SCRIPTS = Path(__file__).parent / "scripts"
# Those that converse.sh calls, and what these call.
FUNCTIONS = ("find_environment", "owned", "start", "earlier", "pack", "stop", "clean")


@functools.cache
def program(script: str = "converse") -> str:
    """Return a script, and before it those that may be called in it, each as a function with a shell of its own."""
    functions = [f"{name}() (\n{_text(name)}\n)\n" for name in FUNCTIONS]
    # For a shell that start.sh leaves behind.
    return "".join([*functions, f"AWAIT_MACHINE={shlex.quote(_text('await_machine'))}\n", _text(script)])


def await_machine(settings: Settings, wait: bool) -> str:
    """Return the command that waits until no run measures on a machine where something is to be provided; or fails."""
    how, wait_s = "shared" if settings.benchmark_shared_machine else "alone", settings.benchmark_sync_timeout_s
    return shlex.join(["sh", "-c", _text("await_machine"), "await", how, str(wait_s if wait else 0), ""])


def _text(name: str) -> str:
    return (SCRIPTS / f"{name}.sh").read_text(encoding="utf-8")


def why_refused(script: str, said: str, on_node: str) -> str:
    """Return one sentence for what a script said that failed; `on_node`: the run's directory there."""
    if number := errno_in(said):
        what = f"{os.strerror(number)}: {on_node} on the node cannot be written to."
        return f"{what} {remedy(number, 'benchmark_work_dir')}"
    return f"{script} failed on the node: {' '.join(said.split())[-300:].rstrip('.')}."
