"""Follow the progress of the module `python_env_install`: Ansible hears from a module only at its end."""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import checkout  # noqa: F401 # puts the checkout on the path

from benchmark.fleet.command import run_command
from benchmark.fleet.errors import NodeError
from benchmark.fleet.ssh import Ssh
from benchmark.progress import PREFIX

# Longer than any installation; it ends with the session.
MOST_S = 24 * 3600
LOOK_S = 2
# The module writes one line into this file beside the environment. Each look also writes to standard output, so that
# the loop ends once the connection is gone; for standard error, ssh does not report that to the node.
_FOLLOW = f"""
case $1 in "~/"*) dir=$HOME/${{1#"~/"}} ;; *) dir=$1 ;; esac
file=${{dir%/*}}/.${{dir##*/}}.progress
while sleep {LOOK_S}; do
  line=
  {{ read -r line < "$file"; }} 2>/dev/null
  echo || exit
  printf '{PREFIX}%s\\n' "$line" >&2 || exit
done
"""


@contextmanager
def following(way: Ssh, directory: str, show: Callable[[str], None]) -> Iterator[None]:
    """Show the progress of the installation into `directory` on the node; failures to follow it are ignored."""
    loop, before = asyncio.new_event_loop(), ""

    def show_changes(line: str) -> None:
        nonlocal before
        # Sometimes there is no line; then the next one may be the same as before.
        if line not in ("", before):
            before = line
            show(line)

    command = shlex.join(["sh", "-c", _FOLLOW, "follow", directory])
    task = loop.create_task(run_command(way, command, None, MOST_S, show_changes))

    def follow() -> None:
        with suppress(NodeError, OSError, TimeoutError, asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(timeout=LOOK_S)
