"""The way to a node: which words of this machine's run a command line there, and what is said where there is no way."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# To let go of a connection that broke.
RESET_S = 5


@dataclass(frozen=True)
class Ssh:
    """How a node is reached; `address`: where."""

    address: str
    command: Callable[[str], Sequence[Any]]
    """Returns the words that run a command line of /bin/sh on the node."""
    login: Callable[[], None] | None = None
    """Opens the connection that sessions share, where they cannot log in by themselves: with a password. It waits."""
    disconnect: Callable[[], Sequence[Any]] | None = None
    """Returns the words that let go of that connection."""
    through_jump: bool = False
    """Whether another host stands in between, which serves all nodes at once."""

    async def reset(self) -> None:
        """Have ssh let go of a connection that broke, so that the next session makes a new one."""
        if self.disconnect is None:
            return
        with suppress(OSError):
            process = await asyncio.create_subprocess_exec(
                *self.disconnect(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(RESET_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def unreachable(message: str, address: str) -> str:
    """Return one sentence for a failed connection. ssh tells its reasons in text only, so its text is read."""
    reasons = {
        "REMOTE HOST IDENTIFICATION HAS CHANGED": (
            f"The SSH host key of {address} has changed: if the node was reinstalled, remove the old key "
            f"(ssh-keygen -R {address}) and accept the new one with ssh; if not, somebody may be in between."
        ),
        "Host key verification failed": (
            f"The SSH host key of {address} is not known: connect once with ssh and compare the fingerprint, "
            "or let playbooks/trust.yml show it."
        ),
        "Permission denied": (
            f"SSH login to {address} was refused: check ansible_user and that the node's authorized_keys "
            "holds this controller's public key (ssh-copy-id)."
        ),
        "Connection refused": f"Nothing answers SSH at {address}: is sshd running, and is ansible_port right?",
        "gave no answer": (
            f"{address} {' '.join(message.split())}: is it overloaded, or does a disk (NFS) or a driver hang there?"
        ),
        "timed out": f"{address} does not answer: is the node up, and is ansible_host right?",
        "Could not resolve hostname": f"The name {address} is not known: set ansible_host to the node's address.",
        "No route to host": f"There is no route to {address}: is the node up, and is ansible_host right?",
        "sshpass": "A password was given but the program sshpass is missing on the controller: use SSH keys.",
    }
    for text, sentence in reasons.items():
        if text in message:
            return f"Not reachable: {sentence}"
    return f"Not reachable: SSH to {address} failed: {' '.join(message.split())[-300:]}"
