"""SSH host keys: those that a node gives, those in known_hosts, and those that a user has confirmed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmark.cluster.names import some
from benchmark.errors import InputError

# One field of a known_hosts line each: a node cannot add a second field, or a second line.
_KIND = re.compile(r"[a-z0-9][a-z0-9@.-]*")
_BLOB = re.compile(r"[A-Za-z0-9+/]+={0,3}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
SSH_PORT = 22

# `changed`: known_hosts holds another key; `revoked`: it holds this key, marked as not to be trusted.
State = Literal["known", "unknown", "changed", "revoked"]


@dataclass(frozen=True)
class HostKey:
    """A public host key in known_hosts' format; `marker` is empty, `@revoked` or `@cert-authority`."""

    kind: str
    blob: str
    marker: str = ""

    def line(self, name: str) -> str:
        """Return the line of known_hosts under which ssh finds it."""
        return " ".join(part for part in (self.marker, name, self.kind, self.blob) if part)

    @property
    def pair(self) -> tuple[str, str]:
        """The key's identity."""
        return self.kind, self.blob


@dataclass(frozen=True)
class Address:
    """Where ssh would really connect, according to `ssh -G`, and what it would check the host key against."""

    host: str
    port: int
    name: str
    """In known_hosts."""
    files: tuple[str, ...]
    """The first is the file to which ssh itself would add a new key."""
    system_files: tuple[str, ...]
    proxy: str = ""


def read_address(text: str) -> Address:
    """Parse the output of `ssh -G`. Raises InputError if it is something else."""
    given = {name: value for name, space, value in (line.partition(" ") for line in text.splitlines()) if space}
    if not given.get("hostname") or not given.get("port", "").isdigit():
        raise InputError("ssh -G does not say where the node is.")
    host, port = given["hostname"], int(given["port"])
    alias = given.get("hostkeyalias", "none")
    proxies = [given[name] for name in ("proxyjump", "proxycommand") if given.get(name, "none") != "none"]
    return Address(
        host=host,
        port=port,
        name=known_name(host, port) if alias == "none" else alias,
        files=tuple(given.get("userknownhostsfile", "").split()),
        system_files=tuple(given.get("globalknownhostsfile", "").split()),
        proxy=" ".join(proxies),
    )


def known_name(host: str, port: int) -> str:
    """Return a host's name in known_hosts."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def read_keys(text: str) -> tuple[HostKey, ...]:
    """Return the keys in lines of ssh-keyscan or known_hosts; comments and other lines are skipped."""
    keys = []
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3 and _KIND.fullmatch(words[1]) and _BLOB.fullmatch(words[2]):
            keys.append(HostKey(words[1], words[2], marker))
    return tuple(dict.fromkeys(keys))


def judge(given: Sequence[HostKey], held: Iterable[HostKey]) -> State:
    """Return how the keys that a node gives compare with those in known_hosts (`held`)."""
    held = tuple(held)
    known = {key.pair for key in held if not key.marker}
    if any(key.pair in {other.pair for other in held if other.marker == "@revoked"} for key in given):
        return "revoked"
    if not known:
        return "unknown"
    kinds = {kind for kind, _ in known}
    same = [key for key in given if key.pair in known]
    other = [key for key in given if key.kind in kinds and key.pair not in known]
    return "known" if same and not other else "changed"


def same_keys(fingerprints: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence for each set of nodes that give the same key; `fingerprints`: of each node's keys."""
    nodes_of: dict[str, list[str]] = {}
    for node, prints in fingerprints.items():
        for fingerprint in prints:
            nodes_of.setdefault(fingerprint, []).append(node)
    shared = {tuple(nodes): fingerprint for fingerprint, nodes in nodes_of.items() if len(nodes) > 1}
    return [
        f"{some(nodes)} give the same SSH host key ({fingerprint}). Either they are one machine, listed more than "
        "once, or they were cloned with the key: then each of them could pose as the others, and needs a key of its "
        "own (rm /etc/ssh/ssh_host_*, ssh-keygen -A)."
        for nodes, fingerprint in shared.items()
    ]


def read_confirmed(text: str) -> frozenset[str]:
    """Return the fingerprints in a comma-separated list. Raises InputError, naming the word that is not one."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    for word in words:
        if not _FINGERPRINT.fullmatch(word):
            raise InputError(
                f"trust_fingerprints: {word} is not a fingerprint: give SHA256:... as ssh-keygen -l prints it; "
                "separate several with commas."
            )
    return frozenset(words)
