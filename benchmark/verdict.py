"""Hold metrics against a profile's limits."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from benchmark.profiles import Limit, Profile
from benchmark.records import (
    Accuracy,
    Check,
    Distribution,
    LoadGenResult,
    Metrics,
    QueryCounts,
    Rouge,
    Serving,
    Status,
    Verdict,
)

_LABELS = {
    "queries.failed": "failed queries",
    "queries.unfinished": "unfinished queries",
    "qps": "QPS",
    "tokens_per_s": "tokens/s",
    "latency_ms": "latency",
    "latency_from_issue_ms": "latency from issue",
    "ttft_ms": "TTFT",
    "ttft_from_issue_ms": "TTFT from issue",
    "tpot_ms": "TPOT",
    "issue_delay_ms": "issue delay",
    "report_delay_ms": "report delay",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "generated_characters": "generated characters",
}


def label(metric: str) -> str:
    """Return the words for a metric's path: "latency_ms.p99" is "P99 latency"."""
    if metric in _LABELS:
        return _LABELS[metric]
    head, _, tail = metric.rpartition(".")
    return f"{tail.upper() if tail[:1] == 'p' else tail} {_LABELS[head]}" if head in _LABELS else metric


def unit(metric: str) -> str:
    """Return the unit of a metric's path, with a leading space, or nothing for counts and rates."""
    return " ms" if "_ms" in metric else ""


@cache
def metric_paths() -> tuple[str, ...]:
    """Return the dotted path of every number in Metrics: what a limit may name."""
    paths: list[str] = []
    for name, field in Metrics.model_fields.items():
        records = [t for t in (field.annotation, *get_args(field.annotation)) if t in (Distribution, QueryCounts)]
        parts = [part for part in records[0].model_fields if part != "insufficient"] if records else []
        paths += [f"{name}.{part}" for part in parts] or [name]
    return tuple(paths)


def value_of(metrics: Metrics, path: str) -> float | None:
    """Return the value at a dotted path, or None where it is undefined. Raises ValueError for an unknown path."""
    if path not in metric_paths():
        raise ValueError(f"there is no metric {path!r}")
    value: Any = metrics
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    number: float | None = value
    return number


@cache
def accuracy_paths() -> tuple[str, ...]:
    """Return what a profile's accuracy limits may name."""
    return tuple(Rouge.model_fields)


@dataclass(frozen=True)
class Findings:
    """What is judged. What was not measured is None: its limits are then not applied, or fail where they must hold."""

    metrics: Metrics | None = None
    loadgen: LoadGenResult | None = None
    accuracy: Accuracy | None = None
    prompts: int | None = None
    """Of the dataset; None: not known."""
    failures: str = ""
    """What queries failed with, in a sentence, where some did."""
    visitors: tuple[str, ...] = ()
    """Sentences, each about a process that came to a GPU that was to be the run's alone."""
    serving: Serving | None = None


def judge(profile: Profile, found: Findings, target_qps: float, status: Status) -> Verdict:
    """Return the verdict: LoadGen's own where it drove the run, every limit as a check, further reasons against it.

    `target_qps` is the whole node's: the setting per GPU times the GPUs that answered.
    """
    checks: list[Check] = []
    if found.loadgen is not None:
        checks += _loadgen_checks(found.loadgen)
    if found.metrics is not None:
        checks += [_check(limit, found.metrics, target_qps) for limit in profile.limits]
    if profile.accuracy != "off":
        rouge = found.accuracy.rouge if found.accuracy else None
        checks += [_limit(limit, getattr(rouge, limit.metric, None), target_qps) for limit in profile.accuracy_limits]
    reasons = [] if status == "complete" else [f"The run is {status}."]
    reasons += [_reason(check) for check in checks if not check.passed]
    if found.failures and any(check.metric == "queries.failed" and not check.passed for check in checks):
        reasons.append(found.failures)
    reasons += found.visitors
    if found.serving is not None and not profile.prefix_caching:
        reasons += _cached(found.serving)
    if found.serving is not None:
        reasons += _throttled(found.serving)
    if found.prompts is not None and found.prompts < profile.min_prompts:
        reasons.append(f"The dataset has {found.prompts} prompts, {profile.min_prompts} are asked.")
    if found.accuracy is not None and found.accuracy.errors:
        reasons.append(f"{found.accuracy.errors} queries of the accuracy run failed.")
    return Verdict(valid=not reasons, checks=tuple(checks), reasons=tuple(reasons))


def _cached(serving: Serving) -> list[str]:
    cache = serving.prefix_cache
    if cache is None or not cache.cached_tokens:
        return []
    of = "" if cache.prompt_tokens is None else f" of {cache.prompt_tokens}"
    return [
        f"{cache.cached_tokens}{of} prompt tokens came from the server's prefix cache and were not computed "
        f"({cache.source}): start the server without it (vLLM: --no-enable-prefix-caching), or take a profile with "
        "prefix_caching: true."
    ]


def _throttled(serving: Serving) -> list[str]:
    if not serving.waited:
        return []
    return [
        f"{serving.waited} queries waited in the client for one of its {serving.max_connections} connections: the "
        "server was not offered the load that was asked for. Raise what the node's user may have (open files: ulimit "
        "-Hn, systemd: LimitNOFILE; ports: net.ipv4.ip_local_port_range), or ask for less at once."
    ]


def _loadgen_checks(loadgen: LoadGenResult) -> list[Check]:
    """Return LoadGen's verdict and what it rests on as checks: never derived again, never softened."""
    told = {f"LoadGen: {name}": met for name, met in loadgen.constraints.items()}
    checks = [_holds(name, met, "") for name, met in told.items()]
    if loadgen.valid is not None:
        checks.append(_holds("LoadGen: result is valid", loadgen.valid, " ".join(loadgen.reasons)[:4000]))
    errors = (f"{error} ({times} times)" if times > 1 else error for error, times in Counter(loadgen.errors).items())
    checks.append(_holds("LoadGen: no errors", not loadgen.errors, "; ".join(errors)[:4000]))
    return checks


def _holds(name: str, holds: bool, note: str) -> Check:
    return Check(metric=name, value=float(holds), comparison="holds", limit=1, passed=holds, note="" if holds else note)


def _check(limit: Limit, metrics: Metrics, target_qps: float) -> Check:
    head, _, tail = limit.metric.rpartition(".")
    needed = getattr(getattr(metrics, head, None), "insufficient", {}).get(tail)
    note = ""
    if needed:
        count = getattr(metrics, head).count
        note = f"{tail.upper()} of {count} samples: insufficient ({needed} needed at 99 % confidence)"
    return _limit(limit, value_of(metrics, limit.metric), target_qps, note)


def _limit(limit: Limit, value: float | None, target_qps: float, note: str = "") -> Check:
    if limit.at_most is not None:
        bound, passed = limit.at_most, value is not None and value <= limit.at_most
    else:
        bound = limit.at_least if limit.at_least is not None else 0.0
        if limit.at_least_of_target is not None:
            bound = limit.at_least_of_target * target_qps
            note = f"{limit.at_least_of_target:.0%} of the target {target_qps:g}"
        passed = value is not None and value >= bound
    comparison = "at_most" if limit.at_most is not None else "at_least"
    return Check(metric=limit.metric, value=value, comparison=comparison, limit=bound, passed=passed, note=note)


def _reason(check: Check) -> str:
    if check.comparison == "holds":
        return f"{check.metric}: no." + (f" {check.note}" if check.note else "")
    name, suffix = label(check.metric), unit(check.metric)
    words = "at most" if check.comparison == "at_most" else "at least"
    value = "undefined" if check.value is None else shown(check.value, check.limit) + suffix
    return f"{name} is {value}, {words} {shown(check.limit, check.value)}{suffix} is asked."


def shown(value: float, beside: float | None = None) -> str:
    """Return a value with as many digits as a reader can use, and as it takes to tell it from the one `beside` it."""
    digits = 3
    while beside not in (None, value) and digits < 17 and _digits(value, digits) == _digits(beside, digits):
        digits += 1
    return _digits(value, digits)


def _digits(value: float | None, digits: int) -> str:
    """Return a number with at least `digits` significant digits, and all those before the decimal point."""
    if value is None or value == 0:
        return "0"
    whole = math.floor(math.log10(abs(value))) + 1
    text = f"{value:.{max(digits - whole, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
