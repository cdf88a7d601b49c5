"""Records in words: profile, engine and its start, answers, checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmark.profiles import Profile
from benchmark.records import (
    Audit,
    Check,
    Distribution,
    EngineInfo,
    NodeResult,
    PrefixCache,
    Rouge,
    Serving,
    Spread,
)
from benchmark.served import BECAUSE, INSTEAD_OF, NOT_REPORTED, describe_model, server_version
from benchmark.text.figures import figure
from benchmark.verdict import label, unit
from benchmark.words import plural, shown

# Stages of an engine's start, in order; the last is the age of the process when the engine was ready.
STARTUP_STAGES = (
    *("imports", "device", "tokenizer", "weights", "weights_from_disk", "device_transfer", "model"),
    *("attention", "cache", "warm_up", "capture", "cross_check", "since_process_start"),
)

_KINDS = {
    "health-check": "a health check, not a capacity figure",
    "hardware": "what the hardware itself delivers, without a model",
    "self-test": "a self-test of the tool, not a figure of the hardware",
}


def describe_profile(profile: Profile) -> str:
    """Return the profile's name and version, and what its numbers stand for."""
    kind = _KINDS.get(profile.kind)
    return f"{profile.name} v{profile.version}" + (f": {kind}" if kind else "")


def describe_prefix_cache(cache: PrefixCache | None) -> str | None:
    """Return how many prompt tokens came from the servers' caches; None without a server."""
    if cache is None:
        return None
    if cache.cached_tokens is None:
        return f"prefix cache: {NOT_REPORTED} ({cache.source})"
    of = "" if cache.prompt_tokens is None else f" of {cache.prompt_tokens}"
    return f"prefix cache: {cache.cached_tokens}{of} prompt tokens came from it ({cache.source})"


def describe_engine(engine: EngineInfo) -> str:
    """Return the engine's name, number of replicas, and the version of the server behind it if it reports one."""
    version = server_version(engine)
    server = f", server version {version}" if version else ""
    fallback = describe_fallback(engine)
    return f"{engine.name}, {plural(engine.replicas, 'replica')}{server}" + (f"; {fallback}" if fallback else "")


def describe_fallback(engine: EngineInfo) -> str:
    """Return which engine it replaced, and why; empty where it is the profile's own engine."""
    asked = engine.details.get(INSTEAD_OF)
    return f"{engine.name} answered instead of {asked}: {engine.details.get(BECAUSE)}" if asked else ""


def startup_seconds(details: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each start-up stage that the engine's details report, in order."""
    reported = details.get("startup_s")
    given = reported if isinstance(reported, dict) else {}
    return {name: given[name] for name in STARTUP_STAGES if type(given.get(name)) is float}


def describe_startup(details: Mapping[str, Any]) -> str | None:
    """Return how long each start-up stage of an engine took; None where its details do not say."""
    seconds = startup_seconds(details)
    age = seconds.pop("since_process_start", None)
    stages = [f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items()]
    return ", ".join([*stages, *([] if age is None else [f"{age:.1f} s since the process began"])]) or None


def describe_rouge(rouge: Rouge) -> str:
    """Return the scores in percent, and the number of answers."""
    scores = (
        f"ROUGE-1 {rouge.rouge1:g}, ROUGE-2 {rouge.rouge2:g}, ROUGE-L {rouge.rougeL:g}, ROUGE-Lsum {rouge.rougeLsum:g}"
    )
    return f"{scores}; {rouge.answers} answers to {rouge.references} prompts, {rouge.generated_characters} characters"


def describe_audit(audit: Audit) -> str:
    """Return the outcome of a compliance test, and each rule that it broke."""
    outcome = "passed" if audit.passed else "FAILED"
    reported = [f"{audit.name} {outcome}: {audit.answers} answers checked."]
    reported += [words for words in audit.checks if ": FAIL" in words]
    reported += [f"{audit.errors} of its queries failed."] if audit.errors else []
    return " ".join(reported)


def floor_note(distributions: Iterable[Distribution], percentiles: Iterable[str]) -> str:
    """Return a sentence naming those of `percentiles` that have too few samples, or nothing."""
    names = list(percentiles)
    short = [d for d in distributions if any(name in d.insufficient for name in names)]
    if not short:
        return ""
    needed = {name: d.insufficient[name] for d in short for name in names if name in d.insufficient}
    counts = sorted({d.count for d in short})
    had = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = ", ".join(f"{name.upper()}: {needed[name]}" for name in names if name in needed)
    return f"of {had} samples: insufficient ({words} needed at 99 % confidence)"


def model_of(result: NodeResult) -> str:
    """Return what was measured: model, revision, precision, device."""
    engine = result.engine
    name = engine.name if engine else result.resolved.profile.engine
    return describe_model(result.resolved.settings, name, engine.details if engine else None)


def spread_words(spread: Spread) -> str:
    """Return a figure's median and range over the repeats, and whether it is stable."""
    suffix, unstable = unit(spread.metric), "" if spread.stable else ": NOT STABLE"
    return (
        f"{label(spread.metric)} {figure(spread.median)}{suffix}, {figure(spread.lowest)} to {figure(spread.highest)}, "
        f"CV {spread.cv:.1%}{unstable}"
    )


def connections_words(serving: Serving) -> str:
    """Return how many queries waited for a connection, or met one that the server had closed; empty if none did."""
    reported = []
    if serving.waited:
        queries = plural(serving.waited, "query", "queries")
        reported.append(f"{queries} waited for one of {serving.max_connections} connections")
    if serving.resent:
        reported.append(
            f"{plural(serving.resent, 'query was', 'queries were')} sent again: the server had closed the idle "
            "connection"
        )
    return "; ".join(reported)


def check_words(check: Check) -> tuple[str, str]:
    """Return "pass" or "FAIL", and the check's value beside its limit."""
    if check.comparison == "holds":
        return "pass" if check.passed else "FAIL", check.metric + (f"; {check.note}" if check.note else "")
    suffix, comparison = unit(check.metric), check.comparison.replace("_", " ")
    value = "undefined" if check.value is None else shown(check.value, check.limit) + suffix
    text = f"{label(check.metric)}: {value}, {comparison} {shown(check.limit, check.value)}{suffix}"
    return "pass" if check.passed else "FAIL", text + (f"; {check.note}" if check.note else "")
