"""Judge metrics by a profile's limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, get_args

from benchmark.probe_floors import floor_checks
from benchmark.probed import PREFIX, words_of
from benchmark.profiles import SIMULATED, Limit, Profile
from benchmark.records import (
    MAX_UNSEEN,
    TOKENS_PER_PIECE,
    Accuracy,
    AnswerCounts,
    Audit,
    Check,
    Distribution,
    HardwareProbes,
    LoadGenResult,
    Metrics,
    QueryCounts,
    Rouge,
    Serving,
    Status,
    Verdict,
)
from benchmark.records.probes import WRONG
from benchmark.words import plural, shown

# Prefix of a metric's path for its geometric mean over the steps of a sweep.
CURVE = "curve."
NO_FLOORS: Mapping[str, float] = MappingProxyType({})
_PARTS = [part for part in Distribution.model_fields if part != "insufficient"]
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
    "first_report_delay_ms": "first token's report delay",
    "report_delay_ms": "report delay",
    "answers.one_piece": "answers in one piece",
    "answers.coarse": "answers in coarse pieces",
    "answers.short": "answers that are too short",
    "answers.miscounted": "answers whose counts differ",
    "answers.miscounted_tokens": "tokens in which counts differ",
    "cost_per_million_output_tokens": "cost of 1M output tokens",
    "cost_per_million_input_tokens": "cost of 1M input tokens",
    "curve.tokens_per_s": "tokens/s over the curve",
    "curve.ttft_ms": "TTFT over the curve",
    "curve.tpot_ms": "TPOT over the curve",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "generated_characters": "generated characters",
}


# Share of tokens by which a server's usage and its streams may differ. An end-of-sequence token that only one of them
# counts is 0.8 % of MLPerf's 128 tokens, and 1.6 % of 64.
MAX_MISCOUNTED = 0.02
_TOKEN_TIMES = tuple(f"{name}.{part}" for name in ("ttft_ms", "ttft_from_issue_ms", "tpot_ms") for part in _PARTS)


def label(metric: str) -> str:
    """Return a metric's name in words: "latency_ms.p99" is "P99 latency"."""
    if metric in _LABELS:
        return _LABELS[metric]
    if metric.startswith(PREFIX):
        return words_of(metric)
    head, _, tail = metric.rpartition(".")
    return f"{tail.upper() if tail[:1] == 'p' else tail} {_LABELS[head]}" if head in _LABELS else metric


def unit(metric: str) -> str:
    """Return a metric's unit with a leading space; empty for counts and rates."""
    return " ms" if "_ms" in metric else ""


@cache
def metric_paths() -> tuple[str, ...]:
    """Return the dotted path of every number in Metrics, which limits may name."""
    paths: list[str] = []
    for name, field in Metrics.model_fields.items():
        if name == "times_of":
            continue
        kinds = (Distribution, QueryCounts, AnswerCounts)
        records = [t for t in (field.annotation, *get_args(field.annotation)) if t in kinds]
        parts = [part for part in records[0].model_fields if part != "insufficient"] if records else []
        paths += [f"{name}.{part}" for part in parts] or [name]
    return tuple(paths)


def value_of(metrics: Metrics | None, path: str) -> float | None:
    """Return the value at a dotted path, or None if undefined. Raises ValueError for an unknown path."""
    if path not in metric_paths():
        raise ValueError(f"there is no metric {path!r}")
    value: Any = metrics
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    number: float | None = value
    return number


@cache
def accuracy_paths() -> tuple[str, ...]:
    """Return the scores that a profile's accuracy limits may name."""
    return tuple(Rouge.model_fields)


@dataclass(frozen=True)
class Findings:
    """What is judged. None means not measured: its limits are then not applied, or fail if they are mandatory."""

    metrics: Metrics | None = None
    loadgen: LoadGenResult | None = None
    accuracy: Accuracy | None = None
    prompts: int | None = None
    """Number of the dataset's prompts; None: unknown."""
    failures: str = ""
    """The errors of failed queries, in a sentence."""
    foreign_processes: tuple[str, ...] = ()
    """A sentence for each foreign process that appeared on a GPU of the run."""
    serving: Serving | None = None
    audit: Audit | None = None
    probes: HardwareProbes | None = None
    unanswered: str = ""
    """Which of several servers had queries in flight when the run ended, in a sentence."""


def judge(
    profile: Profile, found: Findings, target_qps: float, status: Status, floors: Mapping[str, float] = NO_FLOORS
) -> Verdict:
    """Return the verdict: LoadGen's own if it drove the run, every limit as a check, and further reasons to be invalid.

    `target_qps`: the whole node's, that is the setting per GPU times the GPUs that answered; `floors`: what probes of
    the hardware must reach, by name.
    """
    checks: list[Check] = []
    # A step of a ladder is short, and may be an overload on purpose.
    if found.loadgen is not None and profile.sweep is None:
        checks += _loadgen_checks(found.loadgen)
    faults: list[tuple[Check, str]] = []
    if found.metrics is not None:
        checks += [_check(limit, found.metrics, target_qps) for limit in profile.limits]
        faults = list(_answer_faults(profile, found.metrics))
    if profile.accuracy != "off":
        rouge = found.accuracy.rouge if found.accuracy else None
        checks += [_limit(limit, getattr(rouge, limit.metric, None), target_qps) for limit in profile.accuracy_limits]
    if found.audit is not None:
        note = " ".join(words for words in found.audit.checks if ": FAIL" in words)
        checks.append(_holds(f"{found.audit.name}: passed", found.audit.passed, note))
    reasons = [] if status == "complete" else [f"The run is {status}."]
    reasons += [_reason(check) for check in checks if not check.passed]
    # The simulated engine only waits, and says nothing about the hardware.
    probed = list(_probe_checks(found.probes, NO_FLOORS if profile.engine == SIMULATED else floors))
    checks += [check for check, _ in probed]
    reasons += [reason for _, reason in probed if reason]
    lacking = any(check.value is None for check, _ in probed)
    if not profile.loads_model or lacking:
        # Otherwise the engine itself shows whether it works on this hardware.
        reasons += list(found.probes.notes) if found.probes else ["The hardware was not probed."]
    if found.metrics is not None and any(check.value is None and check.metric in _TOKEN_TIMES for check in checks):
        reasons += unseen_words(found.metrics)
    checks += [check for check, _ in faults]
    reasons += [reason for _, reason in faults]
    if found.failures and any(check.metric == "queries.failed" and not check.passed for check in checks):
        reasons.append(found.failures)
    if found.unanswered:
        reasons.append(found.unanswered)
    reasons += found.foreign_processes
    if found.serving is not None and not profile.prefix_caching:
        reasons += _cached(found.serving)
    if found.serving is not None:
        reasons += _throttled(found.serving)
    if found.prompts is not None and found.prompts < profile.min_prompts:
        reasons.append(f"The dataset has {found.prompts} prompts, fewer than the required {profile.min_prompts}.")
    if found.accuracy is not None and found.accuracy.errors:
        failed = f"{plural(found.accuracy.errors, 'query', 'queries')} of the accuracy run failed"
        first = ", the first with" if found.accuracy.errors > 1 else ""
        reasons.append(f"{failed}{first}: {found.accuracy.error}" if found.accuracy.error else f"{failed}.")
    if found.audit is not None and found.audit.errors:
        reasons.append(f"{plural(found.audit.errors, 'query', 'queries')} of the {found.audit.name} run failed.")
    return Verdict(valid=not reasons, checks=tuple(checks), reasons=tuple(reasons))


def unseen_words(metrics: Metrics) -> list[str]:
    """Return, in sentences, how many answers did not arrive token by token, and what that means."""
    answers, completed = metrics.answers, metrics.queries.completed
    words = []
    if answers.one_piece:
        words.append(
            f"{answers.one_piece} of {completed} answers arrived in one piece, so the time of their first token is "
            "unknown: something between client and server holds the stream back (a buffering proxy), or the server "
            "does not send token by token."
        )
    if answers.coarse:
        words.append(
            f"{answers.coarse} of {completed} answers arrived in pieces of more than {TOKENS_PER_PIECE} tokens on "
            "average: their TPOT would only show the server's chunking, so it is undefined (vLLM: --stream-interval 1)."
        )
    return words


def answer_words(metrics: Metrics) -> list[str]:
    """Return notes on the answers, apart from their times, in sentences; mostly none."""
    miscounted = miscounted_words(metrics)
    return [*unseen_words(metrics), *([miscounted] if miscounted else [])]


def miscounted_words(metrics: Metrics) -> str:
    """Return in a sentence how often and how much the servers' usage and their streams differ; empty if they agree."""
    answers = metrics.answers
    if not answers.miscounted:
        return ""
    return (
        f"In {answers.miscounted} of {metrics.queries.completed} answers the server's usage and its stream have "
        f"different numbers of tokens, by {answers.miscounted_tokens} in all, with {metrics.output_tokens} counted."
    )


def _probe_checks(probes: HardwareProbes | None, floors: Mapping[str, float]) -> Iterator[tuple[Check, str]]:
    """Yield a check, and its reason if it failed, for each floor in each place, and for wrong products on each GPU."""
    yield from floor_checks(probes, floors)
    for place, figures in probes.places() if probes else ():
        if wrong := figures.get(WRONG):
            said = f"{place} computes wrongly: {wrong.value:.0f} {wrong.unit} products of the same matrices differ."
            check = _at_most(f"{place}: wrong products", wrong.value, 0)
            yield check, "" if check.passed else said


def _answer_faults(profile: Profile, metrics: Metrics) -> Iterator[tuple[Check, str]]:
    """Yield a failed check, and its reason, for each fault of the answers themselves."""
    answers, completed = metrics.answers, metrics.queries.completed
    # LoadGen checks TTFT and TPOT here, without knowing which token times are unknown.
    if profile.scenario_options.get("scenario") == "Server" and completed:
        share = (answers.one_piece + answers.coarse) / completed
        if share > MAX_UNSEEN:
            yield (
                _at_most("share of answers not seen token by token", share, MAX_UNSEEN),
                " ".join(["LoadGen's TTFT and TPOT are not those of tokens.", *unseen_words(metrics)]),
            )
    if answers.miscounted and metrics.output_tokens:
        share = answers.miscounted_tokens / metrics.output_tokens
        if share > MAX_MISCOUNTED:
            reason = f"{miscounted_words(metrics)} At most {MAX_MISCOUNTED:.0%} may differ."
            yield _at_most("share of tokens that are counted otherwise", share, MAX_MISCOUNTED), reason
    if answers.short:
        least, most = profile.generation.min_new_tokens, profile.generation.max_new_tokens
        asked = f"exactly {most} tokens" if least == most else f"at least {least} tokens"
        if profile.dataset == "trace" or profile.dataset_options.get("output_tokens"):
            asked = "as many tokens as the dataset says"
        yield (
            _at_most("answers.short", answers.short, 0),
            (
                f"{answers.short} of {completed} answers are shorter than requested ({asked}): the server "
                "ignores min_tokens or ignore_eos, so it did less work."
            ),
        )


def _at_most(metric: str, value: float, limit: float) -> Check:
    return Check(metric=metric, value=value, comparison="at_most", limit=limit, passed=value <= limit)


def _cached(serving: Serving) -> list[str]:
    cache = serving.prefix_cache
    if cache is None or not cache.cached_tokens:
        return []
    of = "" if cache.prompt_tokens is None else f" of {cache.prompt_tokens}"
    return [
        f"{cache.cached_tokens}{of} prompt tokens came from the server's prefix cache and were not computed "
        f"({cache.source}): start the server without it (vLLM: --no-enable-prefix-caching), or use a profile with "
        "prefix_caching: true."
    ]


def _throttled(serving: Serving) -> list[str]:
    if not serving.waited:
        return []
    return [
        f"{serving.waited} queries waited in the client for one of its {serving.max_connections} connections: the "
        "server did not get the requested load. Raise the limits of the node's user (open files: ulimit -Hn, systemd: "
        "LimitNOFILE; ports: net.ipv4.ip_local_port_range), or keep fewer queries in flight."
    ]


def _loadgen_checks(loadgen: LoadGenResult) -> list[Check]:
    """Return LoadGen's verdict and its constraints as checks, exactly as LoadGen reported them."""
    reported = {f"LoadGen: {name}": met for name, met in loadgen.constraints.items()}
    checks = [_holds(name, met, "") for name, met in reported.items()]
    if loadgen.valid is not None:
        checks.append(_holds("LoadGen: result is valid", loadgen.valid, " ".join(loadgen.reasons)[:4000]))
    errors = [f"{error} ({times} times)" if times > 1 else error for error, times in Counter(loadgen.errors).items()]
    if loadgen.error_count > len(loadgen.errors):
        errors.append(f"{loadgen.error_count} errors in all")
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
    most = check.comparison == "at_most"
    limit = shown(check.limit, check.value) + suffix
    if check.value is None:
        return f"{name} is undefined; {'at most' if most else 'at least'} {limit} is required."
    value = shown(check.value, check.limit) + suffix
    return f"{name} {value} is {'above the allowed' if most else 'below the required'} {limit}."
