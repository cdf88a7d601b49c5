"""The GPU held its clocks down: because it was hot, or because it may not take more power."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_seen, gpus_watched, usual
from benchmark.cluster.results.load import LoadedNode

# NVML's names of why clocks are throttled. A plain hardware slow-down is mostly heat; a power brake has its own name.
THERMAL = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown")
POWER = ("sw_power_cap", "hw_power_brake_slowdown", "board_limit")
# Throttled for so much more of the measuring window than like nodes are.
MORE_SHARE = 0.10


def thermal(suspect: Suspect) -> Iterator[str]:
    """Evidence: throttled by heat for 10 points more of the window than the median of like nodes."""
    yield from _throttled(suspect, THERMAL, "heat")


def power(suspect: Suspect) -> Iterator[str]:
    """Evidence: throttled by power for 10 points more of the window than the median of like nodes."""
    yield from _throttled(suspect, POWER, "its power limit")


def _throttled(suspect: Suspect, reasons: Collection[str], why: str) -> Iterator[str]:
    def share(node: LoadedNode) -> float | None:
        shares = [max((gpu.throttled.get(name, 0.0) for name in reasons), default=0) for gpu in gpus_watched(node)]
        return max(shares, default=None)

    own, others = share(suspect.node), usual(suspect.peers, share)
    if own is not None and others is not None:
        if own >= others + MORE_SHARE:
            hot = max((gpu.temperature_c_max or 0 for gpu in gpus_watched(suspect.node)), default=0)
            heat = f", at up to {hot:.0f} °C" if hot and why == "heat" else ""
            yield f"A GPU was throttled by {why} for {own:.0%} of the time, like nodes for {others:.0%}{heat}."
        return
    # Nothing was watched while measuring: what was so before the run is what there is.
    before = {name for gpu in gpus_seen(suspect.node) for name in gpu.throttle_reasons if name in reasons}
    theirs = {name for peer in suspect.peers for gpu in gpus_seen(peer) for name in gpu.throttle_reasons}
    if before - theirs:
        yield f"A GPU was throttled by {why} before the run ({', '.join(sorted(before - theirs))}), no like node was."
