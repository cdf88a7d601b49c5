"""How to reach a node over ssh: the commands for it, and clear sentences for ssh's errors."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Limits for ending a broken shared connection, and for asking once more why there is none.
RESET_S, EXPLAIN_S = 5, 15

# How ssh refers to a connection that another program made for it: one through a jump host.
_THROUGH = "UNKNOWN port"
# The jump host was reached, and reports what it found at the node.
_FORWARDING = re.compile(r"open failed: (?:connect failed: )?(.*?) stdio forwarding failed")
# The host that ssh's message is about.
_HOST = re.compile(
    r"connect to host (\S+) port|key is known for (\S+) and|host key for (\S+) has changed|"
    r"(?:\S+@)?(\S+): Permission denied|resolve hostname (\S+):"
)
# ssh's messages when a server drops connections because too many are logging in, or the way to a jump host just ended.
_DROPPED = (
    "kex_exchange_identification: Connection closed",
    "kex_exchange_identification: read: Connection reset",
    "banner exchange: Connection to UNKNOWN port 65535: Broken pipe",
)
_LONG_PATH = (
    "The socket path of the shared SSH connection to {host} is too long: set ANSIBLE_SSH_CONTROL_PATH_DIR to a short "
    "directory, such as /tmp/cp."
)
# Refused logins, by ssh's messages; the most specific cause comes first. A server says the same of an unknown user and
# of a key that is not in authorized_keys.
_REFUSED = (
    (r"Too many authentication failures", "{host} rejected it after too many keys: {only}."),
    (
        r"Permissions (?P<mode>\d+) for '(?P<file>[^']+)' are too open",
        "ssh does not use the key {file} because others can read it: chmod 600 {file}.",
    ),
    (
        r"Load key \"(?P<file>[^\"]+)\": (?P<why>.*?passphrase[\w ]*)",
        "the key {file} has a passphrase: load it once with ssh-add {file}.",
    ),
    (
        r"Load key \"(?P<file>[^\"]+)\": (?P<why>Permission denied|No such file or directory)",
        "the key {file} cannot be read here ({why}): set ansible_ssh_private_key_file to a key of your own.",
    ),
    (
        r"Load key \"(?P<file>[^\"]+)\": (?P<why>[\w ]+?)(?= \S+@| Permission| Load| no such|$)",
        "the file {file} is not a private key that ssh can use ({why}): set ansible_ssh_private_key_file to one.",
    ),
    (
        r"(?:no such identity: (?P<file>\S+): |Identity file (?P<other>\S+) not accessible: )No such file",
        "there is no key {file} on this controller: set ansible_ssh_private_key_file to a key that the node accepts.",
    ),
    (
        r"agent refused operation",
        "the ssh-agent refused to sign with its key: unlock it (ssh-add), or touch the security key that it waits for.",
    ),
    (
        r"ssh_askpass|read_passphrase",
        "the key has a passphrase, and there is no terminal to ask for it: load it once with ssh-add.",
    ),
    (
        r"Invalid/incorrect|Permission denied, please try again",
        "the password is wrong, or there is no such user: check ansible_user and ansible_password (--ask-pass).",
    ),
    (
        r"Permission denied \((?![^)]*publickey)(?P<why>[^)]*)\)",
        "its sshd accepts no keys from this user, only {why}: see PubkeyAuthentication in its sshd_config, or give a "
        "password (--ask-pass).",
    ),
    (
        r"Permission denied",
        "it has no such user, or accepts none of this controller's keys: check ansible_user, then ssh-copy-id {login}. "
        "A key with a passphrase must be loaded in the ssh-agent (ssh-add).",
    ),
)
_ONLY_ONE = "set ansible_ssh_private_key_file and, in ssh's configuration, IdentitiesOnly yes"
_OLD_KEY = re.compile(r"Offending \S+ key in (/.*?):\d+ .*?Host key for (\S+) has changed")
_USER = re.compile(r"(\S+)@\S+: Permission denied")
# ssh's last message if the server refuses the login. Before it a banner may say anything.
_NOT_LET_IN = re.compile(r"Permission denied \([\w,-]+\)|Too many authentication failures")
_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_REASONS = {
    _CHANGED: (
        "The SSH host key of {host} has changed: if it was reinstalled, remove the old key ({remove}) and accept the "
        "new one with ssh, or by playbooks/trust.yml; if not, the connection may be intercepted."
    ),
    "Host key verification failed": (
        "The SSH host key of {host} is not known: connect once with ssh and compare the fingerprint, or let "
        "playbooks/trust.yml show it."
    ),
    "Connection refused": "Nothing answers SSH at {host}: is sshd running, and is ansible_port right?",
    "gave no answer": "{host} {said}: is it overloaded, or does a disk (NFS) or a driver hang there?",
    "timed out": "{host} does not answer: is the node up, and is ansible_host right?",
    "Could not resolve hostname": "The name {host} is not known: set ansible_host to the node's address.",
    "No route to host": "There is no route to {host}: is the node up, and is ansible_host right?",
    "Network is unreachable": "This controller has no route to the network of {host}: is ansible_host right?",
    "too long for Unix domain socket": _LONG_PATH,
    "ControlPath too long": _LONG_PATH,
    "Bad configuration option": "ssh rejects its configuration: {said}",
    "Bad owner or permissions": "ssh refuses to read its configuration: {said}",
    "Unable to negotiate": "{host} and this controller's ssh have no algorithm in common: {said}",
    "sshpass": "A password was given but the program sshpass is missing on the controller: use SSH keys.",
}
_JUMP_REASONS = {
    _CHANGED: (
        "its SSH host key has changed: if it was reinstalled, remove the old key ({remove}) and accept the new one "
        "with ssh; if not, the connection may be intercepted"
    ),
    "Host key verification failed": "its SSH host key is not known: connect once with ssh and compare the fingerprint",
    "Permission denied": "it refused the SSH login: check its user, and that its authorized_keys contains this key",
    "Connection refused": "nothing answers SSH there: is sshd running, and is its port right?",
    "Could not resolve hostname": "its name is not known",
    "No route to host": "there is no route to it: is it up?",
    "connect to host": "it does not answer: is it up?",
}


@dataclass(frozen=True)
class Ssh:
    """How to reach a node at `address`."""

    address: str
    command: Callable[[str], Sequence[Any]]
    """Returns the command that runs a line of /bin/sh on the node."""
    login: Callable[[], None] | None = None
    """Opens the connection that sessions share if the login needs a password, which sessions cannot give. Blocks."""
    disconnect: Callable[[], Sequence[Any]] | None = None
    """Returns the command that ends that connection."""
    alone: Callable[[], Sequence[Any]] | None = None
    """Returns the command that runs `true` over a connection that is not shared."""
    through_jump: bool = False
    """Whether a jump host is in between, which serves all nodes at once."""

    async def explain(self, message: str) -> str:
        """Return why there is no connection, in ssh's words; `message`: its words so far.

        With a shared connection, ssh drops the messages about a jump host.
        """
        if self.alone is None or _THROUGH not in message or not dropped(message):
            return message
        said = await _said(self.alone(), EXPLAIN_S)
        return " ".join(said.split())[-1000:] or message

    async def reset(self) -> None:
        """Make ssh end a broken shared connection, so that the next session makes a new one."""
        if self.disconnect is not None:
            await _said(self.disconnect(), RESET_S)


async def _said(words: Sequence[Any], within_s: float) -> str:
    """Run a command without input; return its standard error, or an empty text if it does not end in time."""
    with suppress(OSError, TimeoutError), tempfile.TemporaryFile() as said:
        # Into a file: a process that the command leaves running, such as a master connection, would keep a pipe open.
        process = await asyncio.create_subprocess_exec(
            *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        finally:
            with suppress(ProcessLookupError):  # it has ended
                process.kill()
            await process.wait()
        said.seek(0)
        return said.read().decode(errors="replace")
    return ""


def unreachable(message: str, address: str) -> str:
    """Return one sentence for a failed connection, from ssh's messages: it reports reasons only in text."""
    said = " ".join(message.split())
    if _THROUGH in said and not (forwarded := _FORWARDING.search(said)):
        return _unreachable_jump(said, address)
    if _THROUGH in said and forwarded:
        # Every ssh of a broken chain reports it; only the last one connects to the node.
        if said.count(_THROUGH) > 1:
            return (
                f"Not reachable: A jump host on the way to {address} cannot reach the next one ({forwarded[1]}): is "
                "the next one up, is forwarding to it allowed, and are addresses and ports right?"
            )
        return _unreachable_from_jump(forwarded[1], address)
    if _NOT_LET_IN.search(said) and _CHANGED not in said:
        return f"Not reachable: {_refused(said, address)}"
    for text, sentence in _REASONS.items():
        if text in said:
            return f"Not reachable: {sentence.format(host=address, said=said[-300:], remove=_remove(said, address))}"
    if refused := _refused(said, address):
        return f"Not reachable: {refused}"
    return f"Not reachable: SSH to {address} failed: {said[-300:]}"


def _remove(said: str, host: str) -> str:
    """Return the command that removes a host's old key, with the file and the host's name (and port) in it."""
    file, name = found.groups() if (found := _OLD_KEY.search(said)) else ("", host)
    own = file in ("", str(Path("~/.ssh/known_hosts").expanduser()))
    return shlex.join(["ssh-keygen", *([] if own else ["-f", file]), "-R", name])


def _refused(said: str, address: str) -> str:
    """Return a sentence for a refused login, with what to do; empty if it was not refused."""
    if not re.search("Permission denied|Too many authentication failures|Invalid/incorrect", said):
        return ""
    user = found[1] if (found := _USER.search(said)) else ""
    login = f"{user}@{address}" if user else address
    for pattern, words in _REFUSED:
        if match := re.search(pattern, said):
            named = {name: value for name, value in match.groupdict().items() if value}
            file = named.pop("file", named.pop("other", ""))
            why = words.format(host=address, login=login, only=_ONLY_ONE, file=file, **named)
            return f"SSH login to {login} was refused: {why}"
    return ""


def dropped(message: str) -> bool:
    """Return whether a server or jump host closed the connection without a reason, so that a retry may succeed."""
    named = (*_REASONS, "Permission denied", "open failed")
    return any(words in message for words in _DROPPED) and not any(text in message for text in named)


def _unreachable_jump(said: str, address: str) -> str:
    """Return one sentence for a jump host that cannot be used."""
    found = _HOST.search(said)
    host = next((name for name in found.groups() if name), "") if found else ""
    where = f"The jump host {host}, on the way to {address}," if host else f"The jump host on the way to {address}"
    for text, reason in _JUMP_REASONS.items():
        if text in said:
            why = reason.format(remove=_remove(said, host))
            return f"Not reachable: {where} cannot be used: {why}" + "." * (why[-1] != "?")
    if "timed out" in said:
        return f"Not reachable: {address} does not answer through its jump host: is the node up, and is the jump host?"
    return f"Not reachable: {where} cannot be used: {said[-300:]}"


def _unreachable_from_jump(reason: str, address: str) -> str:
    """Return one sentence for a node that its jump host could not reach."""
    if "prohibited" in reason:
        what = "the jump host does not forward connections to it (AllowTcpForwarding, PermitOpen in its sshd_config)."
    elif "refused" in reason:
        what = "seen from the jump host, nothing answers SSH there: is sshd running, and is ansible_port right?"
    elif "not known" in reason or "resolve" in reason:
        what = "the jump host does not know that name: set ansible_host to the node's address as seen from there."
    else:
        what = f"the jump host cannot reach it ({reason}): is the node up, and is ansible_host right?"
    return f"Not reachable: {address}: {what}"
