"""What measuring more than once costs in time, said before it begins."""

from __future__ import annotations

from collections.abc import Collection

from benchmark.fleet.rendezvous import measures, turns_s
from benchmark.settings import ResolvedSettings

# What LoadGen's own configuration asks of every MLPerf run as long as a profile does not say otherwise.
LOADGEN_LEAST_MS = 600_000


def prices(nodes: Collection[ResolvedSettings]) -> list[str]:
    """Return a sentence each on the turns alone and on the repeats, where there are any."""
    asked = [one for one in nodes if measures(one)]
    found = []
    if turns_s(asked):
        found.append(
            f"benchmark_solo_first: {len(asked)} nodes measure alone, one after the other, before all do together. "
            f"That is {len(asked)} measurements more, {_each(asked)}. A turn may take benchmark_timeout_s."
        )
    repeats = max((one.settings.benchmark_repeats for one in asked), default=1)
    if repeats > 1:
        found.append(
            f"benchmark_repeats: after one load there are {repeats} measurements, {_each(asked)}. Each may take "
            "benchmark_timeout_s."
        )
    return found


def measurement_s(asked: ResolvedSettings) -> float | None:
    """Return how long one measurement takes at least by LoadGen's schedule, or else at the target's rate on one GPU.

    None where that is open: without a number of queries, or without a rate.
    """
    profile, rate = asked.profile, asked.settings.benchmark_target_qps
    if profile.scenario == "loadgen":
        options = profile.scenario_options
        given_ms = options.get("min_duration_ms")
        least_s: float = (LOADGEN_LEAST_MS if given_ms is None else given_ms) / 1000
        queries = options.get("min_query_count") or 0 if options.get("scenario") == "Server" else 0
        return least_s if rate == "auto" else max(least_s, queries / rate)
    return None if profile.samples is None or rate == "auto" else profile.samples / rate


def _each(asked: Collection[ResolvedSettings]) -> str:
    """Return how long each takes, by the node that takes longest."""
    known = [(seconds, one.profile.scenario) for one in asked if (seconds := measurement_s(one)) is not None]
    if not known:
        return "each as long as a whole run measures"
    seconds, scenario = max(known)
    words = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
    return f"each about {words}" + (" or more" if scenario == "loadgen" else " at the target's rate")
