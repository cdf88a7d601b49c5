"""What the division requires and the runs lack: sentences, each with the command that produces it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmark.audit import TEST06, unlike_config
from benchmark.cluster.submission import readmes
from benchmark.cluster.submission.parts import Part, Scenario, Submission
from benchmark.cluster.submission.rules import (
    LATENCIES_MS,
    MIN_DURATION_MS,
    ROUND,
    Benchmark,
    Division,
    lacking,
)
from benchmark.loadgen_options import SEEDS
from benchmark.profiles import Limit
from benchmark.provisioned import ENGINES
from benchmark.records import LoadGenResult
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION

# The packages that compute, as they are called where runs are compared.
FRAMEWORKS = [f"package {name}" for name in ("torch", "transformers", *(one.package for one in ENGINES.values()))]


def missing(submission: Submission, division: Division) -> list[str]:
    """Return what is missing, in the order in which to fix it; empty if nothing is, as far as is known here."""
    sentences: list[str] = []
    for benchmark, nodes in submission.benchmarks.items():
        # What is missing -> the nodes that lack it, so that many nodes do not say the same.
        lacks: dict[tuple[str, str], list[str]] = {}
        for node, scenarios in nodes.items():
            for names in lacking(set(scenarios), benchmark, division):
                words = f"{' or '.join(names)} of {benchmark.name}"
                lacks.setdefault((words, "it was not measured"), []).append(node)
            for name, scenario in scenarios.items():
                if faults := list(_of_scenario(benchmark, name, scenario, division)):
                    lacks.setdefault((name, "; ".join(faults)), []).append(node)
        for (name, what), those in lacks.items():
            command = measure(benchmark, name.split(" ")[0], division)
            if len(those) == len(submission.nodes):
                sentences.append(f"{name}: {what}: {command}")
            else:
                sentences.append(f"{name} on {', '.join(those)}: {what}: {command} --limit {','.join(those)}")
    for node in submission.nodes:
        sentences += _of_system(submission, node, f" on {node}" if len(submission.nodes) > 1 else "")
    parts = [part for node in submission.nodes for part in submission.parts(node)]
    if any(part.result.engine and part.result.engine.simulated for part in parts):
        sentences.append(
            "The engine is simulated and no model was run, so none of this may be submitted: measure with a real "
            "engine (leave benchmark_engine empty)."
        )
    other = [part for part in parts if not readmes.is_reference_model(part)]
    if division == "closed" and other:
        models = " and ".join(dict.fromkeys(map(readmes.model, other)))
        sentences.append(
            f"The model is {models}, and the closed division only allows the reference's weights, {DEFAULT_MODEL} at "
            f"{DEFAULT_REVISION}: leave benchmark_model and benchmark_model_revision as they are (a server must "
            "report its revision), or use --division open."
        )
    return list(dict.fromkeys(sentences))


def measure(benchmark: Benchmark, scenario: str, division: Division) -> str:
    """Return the command that measures a scenario with everything that the division requires."""
    audit = f" -e benchmark_audit={TEST06}" if division == "closed" else ""
    return (
        f"ansible-playbook playbooks/benchmark.yml -e benchmark_profile={benchmark.profiles[scenario]} "
        f"-e benchmark_accuracy=with-performance{audit}"
    )


def _of_scenario(benchmark: Benchmark, name: str, scenario: Scenario, division: Division) -> Iterator[str]:
    if scenario.measured is None:
        yield "there is no performance run"
    else:
        yield from _performance(benchmark, name, scenario.measured, division)
    if scenario.accuracy is None:
        yield "there is no accuracy run"
    else:
        yield from _accuracy(benchmark, scenario.accuracy, division)
    if division == "closed":
        yield from _audit(scenario.audit)
    first = scenario.parts[0]
    for part in scenario.parts[1:]:
        if _asked(part) != _asked(first):
            yield (
                f"the runs {first.run_id} and {part.run_id} had different engine options or generation settings, and "
                "performance, accuracy and audit are of one system"
            )


def _asked(part: Part) -> tuple[object, object, object]:
    profile = part.result.resolved.profile
    return profile.engine_options, profile.generation, part.result.resolved.settings.benchmark_replicas


def _performance(benchmark: Benchmark, name: str, measured: LoadGenResult, division: Division) -> Iterator[str]:
    settings = measured.settings
    if not measured.valid:
        yield f"LoadGen says INVALID ({' '.join(measured.reasons).rstrip('.') or 'without a reason'})"
    if measured.errors:
        yield f"LoadGen logged an error ({measured.errors[0]})"
    if _number(settings, "min_duration_ms") < MIN_DURATION_MS:
        yield f"the run was allowed to be shorter than {MIN_DURATION_MS // 1000} s"
    if _number(settings, "performance_sample_count") < benchmark.samples:
        yield f"queries were drawn from fewer than {benchmark.samples:,} articles"
    if division == "closed" and name == "Offline" and _number(settings, "samples_per_query") < benchmark.samples:
        yield f"the query has fewer than {benchmark.samples:,} samples"
    if any(settings.get(seed) != value for seed, value in SEEDS[ROUND].items()):
        yield f"the seeds are not those of round {ROUND}"
    for (metric, key), limit_ms in zip(
        {
            "P99 TTFT": "result_first_token_99.00_percentile_latency_ns",
            "P99 TPOT": "result_time_per_output_token_99.00_percentile_ns",
        }.items(),
        LATENCIES_MS.get(name, (0, 0)),
        strict=True,
    ):
        value = measured.results.get(key)
        if limit_ms and (not isinstance(value, (int, float)) or value >= limit_ms * 1e6):
            shown = f"{value / 1e6:.1f} ms" if isinstance(value, (int, float)) else "not reported"
            yield f"{metric} is {shown}, and must be below {limit_ms} ms"


def _accuracy(benchmark: Benchmark, part: Part, division: Division) -> Iterator[str]:
    accuracy = part.result.accuracy
    if accuracy is None or accuracy.loadgen is None:
        return
    answered = accuracy.loadgen.settings.get(
        "accuracy_sample_count", part.result.dataset and part.result.dataset.prompts
    )
    if answered != benchmark.samples:
        yield f"the accuracy run has {answered} articles, and needs all {benchmark.samples:,}"
    if accuracy.loadgen.errors:
        yield f"LoadGen logged an error in the accuracy run ({accuracy.loadgen.errors[0]})"
    if accuracy.rouge is None:
        if division == "closed":
            yield "the answers have no scores, because the dataset has no references"
        return
    if division == "closed":
        for limit in benchmark.accuracy_limits:
            value = getattr(accuracy.rouge, limit.metric)
            if not _holds(limit, value):
                bound = f"at least {limit.at_least}" if limit.at_least is not None else f"at most {limit.at_most}"
                yield f"{limit.metric} is {value}, and must be {bound}"


def _audit(part: Part | None) -> Iterator[str]:
    audit = part.result.audit if part is not None else None
    if audit is None:
        yield f"there is no {TEST06} run"
        return
    if not audit.passed:
        # The same sentences as in the node's own result, which was held against the log.
        yield f"{TEST06} failed ({' '.join(check for check in audit.checks if ': FAIL' in check).rstrip('.')})"
    if audit.errors:
        yield f"{audit.errors} queries of the {TEST06} run failed"
    if audit.loadgen.errors:
        yield f"LoadGen logged an error in the {TEST06} run ({audit.loadgen.errors[0]})"
    if unlike := unlike_config(audit.loadgen):
        yield f"the {TEST06} run was not made with the official audit.config ({', '.join(unlike)})"


def _of_system(submission: Submission, node: str, where: str) -> Iterator[str]:
    """Yield how the node differed between its runs: a system must not change within a submission."""
    parts = submission.parts(node)
    first = _facts(parts[0])
    for part in parts[1:]:
        for fact, value in _facts(part).items():
            if value != first[fact]:
                was, before = value or "not reported", first[fact] or "not reported"
                yield (
                    f"{fact} was {was} in the run {part.run_id} and {before} in the run {parts[0].run_id}{where}: "
                    "measure both again with one of them."
                )


def _facts(part: Part) -> dict[str, str]:
    seen = part.environment
    packages = {f"package {name}": version for name, version in {**seen.packages, **seen.server_packages}.items()}
    return {
        "the driver": seen.driver or "",
        "the kernel": seen.kernel,
        "the weights' SHA-256": seen.model_sha256,
        **{name: packages.get(name, "") for name in FRAMEWORKS},
    }


def _number(settings: dict[str, Any], name: str) -> float:
    value = settings.get(name)
    return value if isinstance(value, (int, float)) else 0


def _holds(limit: Limit, value: float) -> bool:
    return (limit.at_least is None or value >= limit.at_least) and (limit.at_most is None or value <= limit.at_most)
