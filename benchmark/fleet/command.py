"""Run one command on a node; get its exit code, standard output and standard error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmark.fleet.errors import Lost
from benchmark.fleet.session import call
from benchmark.fleet.ssh import Ssh

_COMMAND = """mark=$1
printf '%s begin\\n' "$mark"
{{ {command}
}}{stdin}
code=$?
printf '%s end\\n' "$mark" >&2
printf '\\n%s end %s\\n' "$mark" "$code"
"""


async def run_command(
    ssh: Ssh, command: str, stdin: bytes | None, within_s: float, heard: Callable[[str], None] | None = None
) -> tuple[int, str, str]:
    """Run a simple /bin/sh command on the node; return its exit code, stdout and stderr. Raises Lost, Refused.

    `heard` receives the command's progress lines as they come: lines of stderr that begin with PREFIX.
    """
    program = _COMMAND.format(command=command, stdin=" < /dev/null" if stdin is None else "")
    session = await call(ssh, program, ["command", "{mark}"], within_s, asyncio.Semaphore(1))
    session.heard = heard
    try:
        if stdin is not None:
            session.send_bytes(stdin)
            session.end_input()
        try:
            async with asyncio.timeout(within_s):
                await session.receive(within_s)
                out, word, code = await session.receive_text(within_s)
        except TimeoutError:
            raise Lost(f"accepted a command but gave no answer within {within_s:.0f} s") from None
        if word != "end" or not code.isdecimal() or len(code) > 3:
            raise Lost("the command ended without an exit code")
        return int(code), out, await session.errors_to_end()
    finally:
        session.close()
