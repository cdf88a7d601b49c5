"""Causes: the GPU lowered its clocks because of heat, or because of its power limit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_probed, gpus_seen, gpus_watched, usual
from benchmark.cluster.results.load import LoadedNode
from benchmark.records.probes import Measured

# NVML's names of throttle reasons. A plain hardware slowdown is mostly heat; a power brake has its own name.
THERMAL = ("sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown")
POWER = ("sw_power_cap", "hw_power_brake_slowdown", "board_limit")
# Throttled for this much more of the measuring window than like nodes.
MORE_SHARE = 0.10
# Figures of the probe of the sustained matrix product; without a clock there are no throttle reasons either.
CLOCK, HEAT, REASON = "sustained_clock", "sustained_temperature", "sustained_throttled_"


def thermal(suspect: Suspect) -> Iterator[str]:
    """Evidence: throttled by heat for 10 points more of the window than the median of like nodes."""
    yield from _throttled(suspect, THERMAL, "heat")


def power(suspect: Suspect) -> Iterator[str]:
    """Evidence: throttled by power for 10 points more of the window than the median of like nodes."""
    yield from _throttled(suspect, POWER, "its power limit")


def _throttled(suspect: Suspect, reasons: Collection[str], why: str) -> Iterator[str]:
    def watched(node: LoadedNode) -> float | None:
        shares = [max((gpu.throttled.get(name, 0.0) for name in reasons), default=0) for gpu in gpus_watched(node)]
        return max(shares, default=None)

    def probed(node: LoadedNode) -> float | None:
        shares = [_probed_share(gpu.figures, reasons) for gpu in gpus_probed(node) if CLOCK in gpu.figures]
        return max(shares, default=None)

    def hottest() -> float:
        hot = [gpu.temperature_c_max or 0 for gpu in gpus_watched(suspect.node)]
        hot += [gpu.figures[HEAT].value for gpu in gpus_probed(suspect.node) if HEAT in gpu.figures]
        return max(hot, default=0)

    known = False
    for share, when in ((watched, ""), (probed, " of a long matrix product")):
        own, others = share(suspect.node), usual(suspect.peers, share)
        if own is None or others is None:
            continue
        known = True
        if own >= others + MORE_SHARE:
            hot = hottest()
            heat = f", at up to {hot:.0f} °C" if hot and why == "heat" else ""
            than = f"{suspect.others} for {others:.0%}"
            yield f"A GPU was throttled by {why} for {own:.0%} of the time{when}, {than}{heat}."
            return
    if known:
        return
    # Without telemetry under load, the state before the run must do.
    before = {name for gpu in gpus_seen(suspect.node) for name in gpu.throttle_reasons if name in reasons}
    theirs = {name for peer in suspect.peers for gpu in gpus_seen(peer) for name in gpu.throttle_reasons}
    if before - theirs:
        reported = ", ".join(sorted(before - theirs))
        yield f"A GPU was throttled by {why} before the run ({reported}), {suspect.others} were not."


def _probed_share(figures: Mapping[str, Measured], reasons: Collection[str]) -> float:
    return max((figures[REASON + name].value for name in reasons if REASON + name in figures), default=0.0)
