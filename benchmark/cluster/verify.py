"""Is the number true? A node's result is held against what was asked of the node and against its own samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmark import metrics
from benchmark.errors import InputError
from benchmark.records import Metrics, NodeResult, RunRecord, Sample
from benchmark.settings import ResolvedSettings
from benchmark.verdict import judge

# Both sides compute the same formulas in double precision; only the last bits may differ between two machines.
RELATIVE_TOLERANCE = 1e-9


def differences(claimed: Any, given: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, claimed and given value for everything in which two JSON-like values differ."""
    within = f"{path}." if path else ""
    if isinstance(claimed, dict) and isinstance(given, dict):
        for name in sorted(claimed.keys() | given.keys()):
            yield from differences(claimed.get(name), given.get(name), f"{within}{name}")
    elif isinstance(claimed, list | tuple) and isinstance(given, list | tuple) and len(claimed) == len(given):
        for number, (one, other) in enumerate(zip(claimed, given, strict=True)):
            yield from differences(one, other, f"{within}{number}")
    elif isinstance(claimed, float) and isinstance(given, float):
        if not math.isclose(claimed, given, rel_tol=RELATIVE_TOLERANCE):
            yield path, claimed, given
    elif claimed != given:
        yield path, claimed, given


def check_origin(result: NodeResult, run: RunRecord, node: str) -> None:
    """Raise InputError where the result is not this node's answer to what this run asked of it."""
    if result.run_id != run.run_id:
        raise InputError(f"it belongs to the run {result.run_id}, not to {run.run_id}.")
    if result.node != node:
        raise InputError(f"it is the result of {result.node}, not of {node}.")
    asked = run.nodes[node]
    for path, claimed, given in differences(result.resolved.model_dump(), asked.model_dump()):
        raise InputError(f"it was measured with other settings than were asked: {path} is {claimed!r}, not {given!r}.")
    if result.engine is not None and result.engine.name != asked.profile.engine:
        raise InputError(f"the engine {result.engine.name} answered where {asked.profile.engine} was asked for.")


def measured(samples: Sequence[Sample], asked: ResolvedSettings) -> Metrics:
    """Return what the samples amount to. Raises InputError where they cannot be one run's."""
    try:
        return metrics.compute(samples, asked.profile.samples)
    except ValueError as error:
        raise InputError(f"samples.jsonl: {error}.") from None


def check_claims(result: NodeResult, samples: Sequence[Sample], given: Metrics) -> None:
    """Raise InputError where a complete result claims what its samples do not give.

    The checks of the verdict are judged again. A node may have further reasons against itself, never for itself.
    """
    engine, environment, window, verdict = result.engine, result.environment, result.window, result.verdict
    if not (engine and environment and result.dataset and window and result.metrics and verdict):
        parts = ("environment", "engine", "dataset", "window", "metrics", "verdict")
        missing = [name for name in parts if getattr(result, name) is None]
        raise InputError(f"it claims to be complete and has no {' and no '.join(missing)}.")
    settings = result.resolved.settings
    if settings.benchmark_device == "cuda" and not engine.simulated and engine.replicas > len(environment.gpus):
        raise InputError(f"it claims {engine.replicas} replicas on {len(environment.gpus)} GPUs.")
    for path, claimed, value in differences(result.metrics.model_dump(), given.model_dump()):
        raise InputError(f"its metric {path} is {claimed}, its samples give {value}.")
    last = max((s.completed_ns or s.issued_ns for s in samples), default=0)
    if last > window.ended_unix_ns - window.started_unix_ns:
        raise InputError("its samples reach beyond its measuring window.")
    judged = judge(result.resolved.profile, given, settings.benchmark_target_qps * engine.replicas, result.status)
    # Words may change between versions of this program; values, limits and outcomes may not.
    claims = [check.model_dump(exclude={"note"}) for check in verdict.checks]
    for path, claimed, value in differences(claims, [check.model_dump(exclude={"note"}) for check in judged.checks]):
        raise InputError(f"its verdict's checks differ from what its samples give{_at(path, claimed, value)}.")
    if verdict.valid != (judged.valid and not verdict.reasons) or not (verdict.valid or verdict.reasons):
        raise InputError(f"it claims to be {_word(verdict.valid)}, its samples make it {_word(judged.valid)}.")


def _at(path: str, claimed: Any, value: Any) -> str:
    return f": check {path} is {claimed}, not {value}" if path else ""


def _word(valid: bool) -> str:
    return "valid" if valid else "invalid"
