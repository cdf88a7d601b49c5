"""How long a run takes, announced before it begins if that is long."""

from __future__ import annotations

from collections.abc import Collection

from benchmark.fleet.rendezvous import measures, turns_s
from benchmark.loadgen_options import EQUALLY, PLANNED, Options
from benchmark.profiles import Profile
from benchmark.settings import ResolvedSettings
from benchmark.words import one_of

# LoadGen's own configuration for every MLPerf run, unless a profile overrides it.
LOADGEN_LEAST_MS = 600_000
# Shorter times are not announced.
LONG_S = 120


def estimated_durations(nodes: Collection[ResolvedSettings]) -> list[str]:
    """Return sentences on what takes long: a schedule, nodes measuring alone, repeats, sweeps."""
    found = list(dict.fromkeys(sentence for one in nodes if (sentence := _of_schedule(one)) is not None))
    asked = [one for one in nodes if measures(one)]
    if turns_s(asked):
        found.append(
            f"benchmark_solo_first: {len(asked)} nodes measure alone, one after another, before all measure together. "
            f"That adds {len(asked)} measurements, {_each(asked)}. Each may take up to benchmark_timeout_s."
        )
    repeats = max((one.settings.benchmark_repeats for one in asked), default=1)
    if repeats > 1:
        found.append(
            f"benchmark_repeats: the model is loaded once and measured {repeats} times, {_each(asked)}. Each may take "
            "benchmark_timeout_s."
        )
    return [*found, *dict.fromkeys(map(_of_sweep, (one.profile for one in asked if one.profile.sweep)))]


def _of_sweep(profile: Profile) -> str:
    """Return a sentence on a sweep's number of steps, and how long a step takes if that is limited."""
    steps = len(profile.sweep.steps) if profile.sweep else 0
    limit_ms = profile.scenario_options.get("max_duration_ms")
    each = f", each of up to {duration(limit_ms / 1000)} plus the queries then in flight" if limit_ms else ""
    return f"{profile.name}: the model is loaded once and measured in up to {steps} steps{each}. It may take fewer."


def measurement_s(asked: ResolvedSettings) -> float | None:
    """Return how long one measurement takes at least, by LoadGen's schedule or at the target's rate on one GPU.

    None if that is unknown: without a number of queries, without a rate, or where it depends on a trace.
    """
    profile, rate = asked.profile, _rate(asked)
    if profile.scenario == "loadgen":
        return loadgen_s(profile, rate)
    return None if profile.samples is None or rate is None or profile.replays else profile.samples / rate


def loadgen_s(profile: Profile, rate: float | None) -> float:
    """Return how long LoadGen measures at least, in seconds, at `rate` queries per second.

    Without a rate that is its minimum duration.
    """
    options = Options.model_validate(profile.scenario_options)
    least_s = (LOADGEN_LEAST_MS if options.min_duration_ms is None else options.min_duration_ms) / 1000
    if rate is None:
        return least_s
    queries = options.issued(PLANNED[options.scenario] * least_s * rate, profile.min_prompts, options.model in EQUALLY)
    return max(least_s, queries / rate)


def duration(seconds: float) -> str:
    """Return a time in words: "45 s", "12 min", "7 h 26 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _rate(asked: ResolvedSettings) -> float | None:
    """Return the queries/s required of one GPU; None if they are searched for, or queries follow one another."""
    target = asked.settings.benchmark_target_qps
    return None if target == "auto" or asked.profile.scenario_options.get("scenario") == "SingleStream" else target


def _of_schedule(asked: ResolvedSettings) -> str | None:
    """Return a sentence on the time that a schedule takes; None if that is short, or depends on a trace."""
    profile, rate, limit_s = asked.profile, _rate(asked), asked.settings.benchmark_timeout_s
    performance_s = measurement_s(asked)
    if profile.scenario not in ("loadgen", "schedule") or performance_s is None or performance_s < LONG_S:
        return None
    times = {"measuring": performance_s if profile.measures_queries else 0.0}
    if rate is not None and profile.accuracy != "off":
        times["accuracy over all prompts"] = profile.min_prompts / rate
    reported = ", ".join(f"{what} {duration(seconds)}" for what, seconds in times.items() if seconds)
    if rate is None:
        reported += " or more: the exact time is known, and shown, once it has begun"
    else:
        device = one_of(asked.settings.benchmark_device)
        reported += f" at {rate:g} queries/s, which benchmark_target_qps requires of a {device}"
    words = f"{profile.name}: {reported}."
    if sum(times.values()) > limit_s:
        words += (
            f" benchmark_timeout_s ({limit_s}) ends a run that takes longer than {duration(limit_s)}: "
            "raise it, or raise the target if the GPUs are faster."
        )
    return words


def _each(asked: Collection[ResolvedSettings]) -> str:
    """Return how long each measurement takes on the slowest node."""
    known = [(seconds, one.profile.scenario) for one in asked if (seconds := measurement_s(one)) is not None]
    if not known:
        return "each as long as a whole measurement"
    seconds, scenario = max(known)
    return f"each about {duration(seconds)}" + (" or more" if scenario == "loadgen" else " at the target's rate")
