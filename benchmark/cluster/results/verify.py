"""Whether a node's result is true: it is checked against the node's order and against its own samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmark import metrics
from benchmark.audit import AUDIT_PREFIX, judge_audit
from benchmark.cluster.results.differences import differences
from benchmark.columns import Columns
from benchmark.errors import InputError
from benchmark.loadgen_log import ACCURACY, DETAIL, SOLO, read_result
from benchmark.profiles import Sweep
from benchmark.records import LoadGenResult, Metrics, NodeResult, RunRecord, Solo
from benchmark.settings import ResolvedSettings
from benchmark.verdict import Findings, judge

# No GPU draws this much.
MAX_GPU_W = 5000


def check_origin(result: NodeResult, run: RunRecord, node: str) -> None:
    """Raise InputError if the result is not this node's result for this run's order."""
    if result.run_id != run.run_id:
        raise InputError(f"it belongs to the run {result.run_id}, not to {run.run_id}.")
    if result.node != node:
        raise InputError(f"it is the result of {result.node}, not of {node}.")
    if not run.took_part(node, result.attempt):
        raise InputError(f"it is from attempt {result.attempt} at the run, in which {node} did not take part.")
    asked = run.nodes[node]
    for path, claimed, given in differences(result.resolved.model_dump(), asked.model_dump()):
        raise InputError(f"it was measured with other settings than the run's: {path} is {claimed!r}, not {given!r}.")
    if result.engine is not None and result.engine.name not in {asked.profile.engine, asked.profile.fallback_engine}:
        raise InputError(f"the engine {result.engine.name} answered instead of {asked.profile.engine}.")


def measured(
    samples: Columns, asked: ResolvedSettings, loadgen: LoadGenResult | None, claimed: Metrics | None = None
) -> Metrics:
    """Return the metrics of the samples. Raises InputError if they cannot be one run's.

    If a node `claimed` times from its samples in a run of LoadGen, as earlier versions did, these are computed too.
    """
    times_of = metrics.LOADGENS if claimed is None else claimed.times_of
    try:
        planned = asked.profile.samples or metrics.issued(samples)
        return metrics.compute(samples, planned, loadgen, asked.profile.generation.min_new_tokens, times_of)
    except ValueError as error:
        raise InputError(f"samples.jsonl: {error}.") from None


def check_loadgen(result: NodeResult, directory: Path, prefix: str = "") -> None:
    """Raise InputError if the result quotes LoadGen differently from the logs in `directory`.

    With the prefix of a repeat, the result is that repeat's, and only its logs are read.
    """
    quotes = {prefix: result.loadgen}
    if not prefix:
        quotes[ACCURACY] = result.accuracy.loadgen if result.accuracy else None
        quotes[AUDIT_PREFIX] = result.audit.loadgen if result.audit else None
        quotes[SOLO] = result.solo.loadgen if result.solo else None
    for of, quote in quotes.items():
        if quote is None:
            continue
        # Results of earlier versions do not count the errors.
        later = {"error_count"} - quote.model_fields_set
        reported = read_result(directory, of).model_dump(exclude=later)
        for path, claimed, given in differences(quote.model_dump(exclude=later), reported):
            raise InputError(f"its {path} of LoadGen is {claimed!r}, {of}{DETAIL} and its summary say {given!r}.")
    if not prefix and result.audit is not None:
        judged = judge_audit(directory, result.audit.loadgen, result.audit.end_tokens)
        besides = {"checks", "errors", "loadgen"}
        for path, claimed, given in differences(
            result.audit.model_dump(exclude=besides), judged.model_dump(exclude=besides)
        ):
            raise InputError(f"its {path} of {judged.name} is {claimed!r}, its log gives {given!r}.")
    asked = result.resolved.profile
    if asked.scenario == "loadgen" and asked.measures_queries:
        if result.loadgen is None:
            raise InputError("LoadGen should have driven it, but it has no result of LoadGen.")
        if result.loadgen.valid is None:
            raise InputError("LoadGen should have judged it, but it has no verdict of LoadGen.")


def check_solo(solo: Solo, samples: Columns, asked: ResolvedSettings) -> None:
    """Raise InputError if a node's figures alone differ from those of its samples."""
    if asked.profile.scenario == "loadgen" and solo.loadgen is None:
        raise InputError("LoadGen should have driven it alone too, but it has no result of LoadGen for that.")
    given = measured(samples, asked, solo.loadgen, solo.metrics)
    for path, claimed, value in differences(solo.metrics.model_dump(), given.model_dump()):
        raise InputError(f"alone, its metric {path} is {claimed}, but its samples give {value}.")
    if samples.last_ns > solo.window.ended_unix_ns - solo.window.started_unix_ns:
        raise InputError("its samples alone extend beyond the time in which it measured alone.")


def check_repeats(result: NodeResult, asked: ResolvedSettings, node: str) -> None:
    """Raise InputError if a complete result has other repeats, or steps of a sweep, than ordered."""
    if asked.profile.sweep is not None:
        check_steps(result, asked.profile.sweep, node)
        return
    count = asked.settings.benchmark_repeats if asked.profile.measures_queries else 1
    if [repeat.number for repeat in result.repeats] != list(range(2, count + 1)):
        raise InputError(f"{node}: {1 + len(result.repeats)} repeats came back instead of {count}.")


def check_steps(result: NodeResult, sweep: Sweep, node: str) -> None:
    """Raise InputError if the steps are not consecutive steps of the ladder, or the reason that it ended is missing."""
    loads = [result.load, *(repeat.load for repeat in result.repeats)]
    measured_steps = [load.step for load in loads if load]
    if not measured_steps and result.status != "complete" and not result.repeats:
        return  # it ended before, or in the midst of, its first step
    first = sweep.steps.index(measured_steps[0]) if measured_steps and measured_steps[0] in sweep.steps else 0
    expected = list(sweep.steps[first : first + 1 + len(result.repeats)])
    if measured_steps != expected:
        raise InputError(f"{node}: it measured the steps {measured_steps} of a sweep with {expected}.")
    if result.status == "complete" and not result.sweep_ended:
        raise InputError(f"{node}: it claims to be complete, but does not say why its sweep ended.")


def check_claims(result: NodeResult, samples: Columns, given: Metrics) -> None:
    """Raise InputError if a complete result contradicts its samples.

    The checks of the verdict are judged again. A node may have further reasons to be invalid, never to be valid.
    """
    profile, settings = result.resolved.profile, result.resolved.settings
    performed = profile.measures_queries
    parts = ["environment", "verdict", *(["engine", "dataset"] if profile.loads_model else ["probes"])]
    parts += ["target_qps", "window", "metrics"] if performed else []
    parts += ["audit"] if settings.benchmark_audit else []
    parts += ["accuracy"] if profile.accuracy != "off" else []
    if missing := [name for name in parts if getattr(result, name) is None]:
        raise InputError(f"it claims to be complete, but has no {' and no '.join(missing)}.")
    engine, environment, verdict = result.engine, result.environment, result.verdict
    if environment is None or verdict is None:
        return  # checked above; repeated for the type checker
    if (
        engine
        and settings.benchmark_device == "cuda"
        and not engine.simulated
        # A group's other nodes have their own GPUs: see `results/groups.py`.
        and not settings.benchmark_group
        and engine.replicas > len(environment.gpus)
    ):
        raise InputError(f"it claims {engine.replicas} replicas on {len(environment.gpus)} GPUs.")
    if performed and engine:
        _check_measurement(result, engine.replicas, samples, given)
    prompts = result.dataset.prompts if result.dataset else None
    found = Findings(
        given if performed else None,
        result.loadgen,
        result.accuracy,
        prompts,
        serving=result.serving,
        audit=result.audit,
        probes=result.probes,
    )
    judged = judge(profile, found, result.target_qps or 0, result.status, settings.benchmark_probe_floors)
    # Words may change between versions of this program; values, limits and outcomes may not.
    claims = [check.model_dump(exclude={"note"}) for check in verdict.checks]
    for path, claimed, value in differences(claims, [check.model_dump(exclude={"note"}) for check in judged.checks]):
        raise InputError(f"its verdict's checks differ from those of its samples{_at(path, claimed, value)}.")
    if verdict.valid != (judged.valid and not verdict.reasons) or not (verdict.valid or verdict.reasons):
        raise InputError(f"it claims to be {_word(verdict.valid)}, but by its samples it is {_word(judged.valid)}.")


def _check_measurement(result: NodeResult, replicas: int, samples: Columns, given: Metrics) -> None:
    asked = result.resolved.settings.benchmark_target_qps
    found = result.peak.target_qps if result.peak else None
    target = found if asked == "auto" else float(asked) * replicas
    if target is None or result.target_qps is None or not math.isclose(result.target_qps, target):
        raise InputError(f"its target was {result.target_qps} queries/s instead of {target}.")
    claims = result.metrics.model_dump() if result.metrics else {}
    for path, claimed, value in differences(claims, given.model_dump()):
        raise InputError(f"its metric {path} is {claimed}, but its samples give {value}.")
    if result.window and samples.last_ns > result.window.ended_unix_ns - result.window.started_unix_ns:
        raise InputError("its samples extend beyond its measuring window.")
    _check_cache(result, samples)
    _check_energy(result, given)


def _check_cache(result: NodeResult, samples: Columns) -> None:
    """Raise InputError if the samples have more cached prompt tokens than the result."""
    if result.serving is None:
        return
    cache = result.serving.prefix_cache
    claimed = cache.cached_tokens or 0 if cache else 0
    found = int(samples.cached_tokens[samples.cached_tokens > 0].sum())
    if found > claimed:
        raise InputError(f"it claims {claimed} prompt tokens from a prefix cache, but its samples have {found}.")


def _check_energy(result: NodeResult, given: Metrics) -> None:
    """Raise InputError for joules that no GPUs can have used, or that are divided by wrong counts."""
    energy = result.telemetry.energy if result.telemetry else None
    if energy is None or result.window is None or result.environment is None:
        return
    window_s = (result.window.ended_unix_ns - result.window.started_unix_ns) / metrics.NS_PER_S
    most = MAX_GPU_W * len(result.environment.gpus) * window_s
    if not 0 <= energy.joules <= most or not math.isclose(energy.window_s, window_s):
        raise InputError(
            f"it claims {energy.joules:g} J in {energy.window_s:g} s; its window is {window_s:g} s long, and its "
            f"{len(result.environment.gpus)} GPUs cannot have used more than {most:g} J."
        )
    for name, value in metrics.per_joule(energy.joules, [given]).items():
        for _, claimed, right in differences(getattr(energy, name), value):
            raise InputError(f"its {name} is {claimed}, but its joules and samples give {right}.")


def _at(path: str, claimed: Any, value: Any) -> str:
    return f": check {path} is {claimed}, not {value}" if path else ""


def _word(valid: bool) -> str:
    return "valid" if valid else "invalid"
