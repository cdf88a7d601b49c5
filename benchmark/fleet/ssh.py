"""The way to a node: which words of this machine's run a command line there, and what is said where there is no way."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# To end a shared connection that broke, and to ask once more why there is none.
RESET_S, EXPLAIN_S = 5, 15

# What ssh says of a connection that it was given by another program: of one through a host in between.
_THROUGH = "UNKNOWN port"
# That host was reached, and says what it found at the node.
_FORWARDING = re.compile(r"open failed: (?:connect failed: )?(.*?) stdio forwarding failed")
# Which host ssh speaks of.
_HOST = re.compile(
    r"connect to host (\S+) port|key is known for (\S+) and|host key for (\S+) has changed|"
    r"(?:\S+@)?(\S+): Permission denied|resolve hostname (\S+):"
)
# What ssh says where a server drops connections because too many are about to log in.
_DROPPED = ("kex_exchange_identification: Connection closed", "kex_exchange_identification: read: Connection reset")
_REASONS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "The SSH host key of {host} has changed: if it was reinstalled, remove the old key (ssh-keygen -R {host}) and "
        "accept the new one with ssh; if not, somebody may be in between."
    ),
    "Host key verification failed": (
        "The SSH host key of {host} is not known: connect once with ssh and compare the fingerprint, or let "
        "playbooks/trust.yml show it."
    ),
    "Permission denied": (
        "SSH login to {host} was refused: check ansible_user and that the node's authorized_keys holds this "
        "controller's public key (ssh-copy-id)."
    ),
    "Connection refused": "Nothing answers SSH at {host}: is sshd running, and is ansible_port right?",
    "gave no answer": "{host} {said}: is it overloaded, or does a disk (NFS) or a driver hang there?",
    "timed out": "{host} does not answer: is the node up, and is ansible_host right?",
    "Could not resolve hostname": "The name {host} is not known: set ansible_host to the node's address.",
    "No route to host": "There is no route to {host}: is the node up, and is ansible_host right?",
    "sshpass": "A password was given but the program sshpass is missing on the controller: use SSH keys.",
}
_JUMP_REASONS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its SSH host key has changed: if it was reinstalled, remove the old key (ssh-keygen -R {host}) and accept the "
        "new one with ssh; if not, somebody may be in between"
    ),
    "Host key verification failed": "its SSH host key is not known: connect once with ssh and compare the fingerprint",
    "Permission denied": "it refused the SSH login: check its user, and that its authorized_keys holds this key",
    "Connection refused": "nothing answers SSH there: is sshd running, and is its port right?",
    "Could not resolve hostname": "its name is not known",
    "No route to host": "there is no route to it: is it up?",
    "connect to host": "it does not answer: is it up?",
}


@dataclass(frozen=True)
class Ssh:
    """How a node is reached; `address`: where."""

    address: str
    command: Callable[[str], Sequence[Any]]
    """Returns the words that run a command line of /bin/sh on the node."""
    login: Callable[[], None] | None = None
    """Opens the connection that sessions share, where they cannot log in by themselves: with a password. It waits."""
    disconnect: Callable[[], Sequence[Any]] | None = None
    """Returns the words that end that connection."""
    alone: Callable[[], Sequence[Any]] | None = None
    """Returns the words that run `true` over a connection that is not shared."""
    through_jump: bool = False
    """Whether another host stands in between, which serves all nodes at once."""

    async def explain(self, message: str) -> str:
        """Return why there is no connection, in ssh's words; `message`: those that it had so far.

        Where a connection is shared, ssh throws away what was said on the way to a host in between.
        """
        if self.alone is None or _THROUGH not in message or not dropped(message):
            return message
        said = await _said(self.alone(), EXPLAIN_S)
        return " ".join(said.split())[-1000:] or message

    async def reset(self) -> None:
        """Have ssh end a shared connection that broke, so that the next session makes a new one."""
        if self.disconnect is not None:
            await _said(self.disconnect(), RESET_S)


async def _said(words: Sequence[Any], within_s: float) -> str:
    """Run a command without input; return what it says on standard error, nothing where it does not end in time."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(within_s):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return ""
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return said.decode(errors="replace")


def unreachable(message: str, address: str) -> str:
    """Return one sentence for a failed connection. ssh tells its reasons in text only, so its text is read."""
    said = " ".join(message.split())
    if _THROUGH in said and not (forwarded := _FORWARDING.search(said)):
        return _unreachable_jump(said, address)
    if _THROUGH in said and forwarded:
        return _unreachable_from_jump(forwarded[1], address)
    for text, sentence in _REASONS.items():
        if text in said:
            return f"Not reachable: {sentence.format(host=address, said=said, address=address)}"
    return f"Not reachable: SSH to {address} failed: {said[-300:]}"


def dropped(message: str) -> bool:
    """Return whether a server, or a host in between, closed the connection without a reason: it may be let in later."""
    named = (*_REASONS, "open failed")
    return any(words in message for words in _DROPPED) and not any(text in message for text in named)


def _unreachable_jump(said: str, address: str) -> str:
    """Return one sentence for a host on the way to the node that lets nobody pass."""
    found = _HOST.search(said)
    host = next((name for name in found.groups() if name), "") if found else ""
    where = f"The jump host {host}, on the way to {address}," if host else f"The jump host on the way to {address}"
    for text, reason in _JUMP_REASONS.items():
        if text in said:
            return f"Not reachable: {where} lets nobody pass: {reason.format(host=host)}" + "." * (reason[-1] != "?")
    if "timed out" in said:
        return f"Not reachable: {address} does not answer through its jump host: is the node up, and is the jump host?"
    return f"Not reachable: {where} lets nobody pass: {said[-300:]}"


def _unreachable_from_jump(reason: str, address: str) -> str:
    """Return one sentence for a node that a host on the way to it could not reach."""
    if "prohibited" in reason:
        what = "the jump host forwards no connection there (AllowTcpForwarding, PermitOpen in its sshd_config)."
    elif "refused" in reason:
        what = "seen from the jump host, nothing answers SSH there: is sshd running, and is ansible_port right?"
    elif "not known" in reason or "resolve" in reason:
        what = (
            "the jump host does not know that name: set ansible_host to the node's address, as it is seen from there."
        )
    else:
        what = f"the jump host cannot reach it ({reason}): is the node up, and is ansible_host right?"
    return f"Not reachable: {address}: {what}"
