"""Cause: the GPU has memory errors, or the driver reported an error of it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.cluster.diagnosis.suspect import Suspect, gpus_probed, gpus_seen, gpus_watched
from benchmark.records.probes import WRONG

# Corrected errors in one window that are more than bad luck; each costs a replay.
MANY_CORRECTED = 10


def memory_errors(suspect: Suspect) -> Iterator[str]:
    """Evidence: any uncorrected error, ten new corrected ones, or any XID error in the measuring window.

    Also products of the same matrices that differ, before the window. Without telemetry: uncorrected errors since the
    driver was loaded.
    """
    for gpu in gpus_watched(suspect.node):
        if gpu.ecc_uncorrected:
            yield f"GPU {gpu.index} had {gpu.ecc_uncorrected} new uncorrected ECC errors while measuring."
        if (gpu.ecc_corrected or 0) >= MANY_CORRECTED:
            yield f"GPU {gpu.index} had {gpu.ecc_corrected} new corrected ECC errors while measuring."
        if gpu.xid:
            numbers = ", ".join(str(number) for number in gpu.xid)
            yield f"The driver reported XID {numbers} of GPU {gpu.index} while measuring."
    for probed in gpus_probed(suspect.node):
        if (wrong := probed.figures.get(WRONG)) and wrong.value:
            yield f"GPU {probed.index} computed {wrong.value:.0f} {wrong.unit} products of the same matrices wrongly."
    for seen in gpus_seen(suspect.node):
        if seen.ecc_uncorrected:
            yield f"GPU {seen.index} had {seen.ecc_uncorrected} uncorrected ECC errors since the driver was loaded."
