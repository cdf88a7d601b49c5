"""A session on the node that is spoken with while it runs, which ansible-core has no public way to."""

from __future__ import annotations

from typing import Any

from far_shell import far_command


def session_command(connection: Any, far: str) -> list[Any] | None:
    """Return the command that runs the shell's command line `far` on the node; None where there is no such command.

    There is one over OpenSSH with keys, and on this machine; there is none with a password or another connection.
    """
    if connection.transport == "local":
        return ["/bin/sh", "-c", far]
    if connection.transport != "ssh" or connection.get_option("password"):
        return None
    # This is how the connection's own exec_command makes its command.
    build = connection._build_command
    words: list[Any] = build(connection.get_option("ssh_executable"), "ssh", connection.host, far_command(far))
    return words
