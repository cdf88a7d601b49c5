"""Cause: the GPU's power limit is lower than on like nodes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_seen, lowest, usual

# Drivers round the limit; a bigger difference was set on purpose.
LOWER = 0.97


def lower_power_limit(suspect: Suspect) -> Iterator[str]:
    """Evidence: the lowest power limit of its GPUs is below 97 % of the median of like nodes'."""
    own = lowest(gpu.power_limit_w for gpu in gpus_seen(suspect.node))
    others = usual(suspect.peers, lambda peer: lowest(gpu.power_limit_w for gpu in gpus_seen(peer)))
    if own is not None and others is not None and own < LOWER * others:
        default = lowest(gpu.power_limit_default_w for gpu in gpus_seen(suspect.node))
        made_for = f"; the board's default is {default:.0f} W" if default else ""
        yield f"The power limit is {own:.0f} W, {others:.0f} W on {suspect.others}{made_for}."
