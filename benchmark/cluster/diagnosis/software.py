"""The node has other software, or is set up otherwise, than most of its like."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.suspect import Suspect
from benchmark.records import Drift

# Parts of a fact's name that make it a version of software; the rest is how a node is set up.
SOFTWARE = ("driver", "cuda", "kernel", "python", "package", "vbios", "sha256", "platform")


def other_software(suspect: Suspect) -> Iterator[str]:
    """Evidence: a version that fewer of its like have than have another one (see Drift)."""
    yield from (_words(suspect, drift) for drift in suspect.drift if _software(drift) and _odd(suspect, drift))


def other_configuration(suspect: Suspect) -> Iterator[str]:
    """Evidence: another fact that fewer of its like have than have another one (see Drift)."""
    yield from (_words(suspect, drift) for drift in suspect.drift if not _software(drift) and _odd(suspect, drift))


def _software(drift: Drift) -> bool:
    return any(part in drift.fact.lower() for part in SOFTWARE)


def _value(suspect: Suspect, drift: Drift) -> str | None:
    return next((value for value, nodes in drift.values.items() if suspect.node.node in nodes), None)


def _usual(suspect: Suspect, drift: Drift) -> tuple[str, int]:
    peers = {peer.node for peer in suspect.peers}
    return max(((value, len(peers & set(nodes))) for value, nodes in drift.values.items()), key=lambda pair: pair[1])


def _odd(suspect: Suspect, drift: Drift) -> bool:
    own = _value(suspect, drift)
    if own is None:
        return False
    like = sum(peer.node in drift.values[own] for peer in suspect.peers)
    value, most = _usual(suspect, drift)
    return value != own and most > like


def _words(suspect: Suspect, drift: Drift) -> str:
    value, most = _usual(suspect, drift)
    return f"{drift.fact} is {_value(suspect, drift)}, {value} on {most} of {len(suspect.peers)} like nodes."
