"""The node has other software, or is set up otherwise, than most of its peers."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.suspect import Suspect
from benchmark.records import Drift

# Names in Drift of software versions; all other facts are configuration.
SOFTWARE = ("code", "driver", "cuda", "kernel", "python", "gpu.vbios", "model_sha256", "tokenizer_sha256")
PACKAGES = ("packages.", "server_packages.")
# Facts that other causes check with their own thresholds, or that cannot make a node slow.
ELSEWHERE = (
    "cpu_count", "cpu_governor", "clock_offset_s", "gpu.power_limit_w", "gpu.held_down", "gpu.other_processes",
    "gpu.pcie_generation_max", "gpu.pcie_width_max", "gpu.sm_clock_max_mhz", "gpu.memory_clock_max_mhz",
)  # fmt: skip


def other_software(suspect: Suspect) -> Iterator[str]:
    """Evidence: a version that is less frequent among its peers than another one (see Drift)."""
    yield from (_words(suspect, drift) for drift in suspect.drift if _software(drift) and _odd(suspect, drift))


def other_configuration(suspect: Suspect) -> Iterator[str]:
    """Evidence: any other value that is less frequent among its peers than another one (see Drift)."""
    yield from (_words(suspect, drift) for drift in suspect.drift if _configuration(drift) and _odd(suspect, drift))


def _software(drift: Drift) -> bool:
    return drift.fact in SOFTWARE or drift.fact.startswith(PACKAGES)


def _configuration(drift: Drift) -> bool:
    return not _software(drift) and drift.fact not in ELSEWHERE


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
