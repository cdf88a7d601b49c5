"""The files of MLCommons' endpoints format: a system for each node, a point for each constant load.

Unknown values are left out. A sum over nodes is not a system, so groups have none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark import DISCLAIMER
from benchmark.cluster.aggregate import Gathered
from benchmark.cluster.results.load import LoadedNode, Measurement
from benchmark.cluster.submission.system_file import SystemFile
from benchmark.cluster.submission.systems import gib, host_interconnect, software
from benchmark.cluster.sweep import steps_of
from benchmark.errors import InputError
from benchmark.records import Distribution, Environment, Gpu, NodeResult
from benchmark.served import NOT_REPORTED, ModelFacts, hub_name, model_facts
from benchmark.settings.measurement import is_directory_path

# The format's pattern for a system's short name.
SHORT_NAME = 20
PERCENTILES = {"50": "p50", "90": "p90", "95": "p95", "99": "p99"}
TIMES = {"ttft": "ttft_ms", "tpot": "tpot_ms", "latency": "latency_ms"}
# MLCommons' names of the models that it measures, by their ids on the hub.
MODELS = {"meta-llama/Llama-3.1-8B-Instruct": "llama3_1-8b", "deepseek-ai/DeepSeek-R1": "deepseek-r1"}
NS_PER_MS = 1_000_000
OTHER_LOAD = (
    "the format's points have a fixed number of queries in flight, and this run has another load. A profile with the "
    "scenario closed_loop, or a sweep over concurrency, has such points."
)

Content = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """The points of one node, lowest load first, by the queries in flight on the whole node."""

    node: str
    short: str
    points: dict[int, Measurement]

    @property
    def result(self) -> NodeResult:
        """The node's result at its first point, for everything that is the same at all points."""
        return next(iter(self.points.values())).result

    @property
    def environment(self) -> Environment:
        """The node's environment. Raises InputError if its result has none."""
        if self.result.environment is None:
            raise InputError(f"{self.node}: its result does not describe the node.")
        return self.result.environment

    @property
    def model(self) -> ModelFacts:
        """The model that answered."""
        return _facts(self.result)

    @property
    def most_tokens_per_s(self) -> float | None:
        """The highest value of the points; None if it is undefined for one."""
        rates = [one.metrics.tokens_per_s if one.metrics else None for one in self.points.values()]
        known = [rate for rate in rates if rate is not None]
        return max(known) if len(known) == len(rates) else None


def curves_of(gathered: Gathered) -> tuple[list[Curve], list[str]]:
    """Return a curve for each node that has one, and a sentence for each other node.

    Raises InputError if no node has one.
    """
    if gathered.system:
        raise InputError(
            "All nodes of the run are one system, and a point of the endpoints format is of one node: name a run with "
            "benchmark_system: node."
        )
    found: dict[str, dict[int, Measurement]] = {}
    without = []
    for row, node, original in zip(gathered.result.nodes, gathered.nodes, gathered.originals, strict=True):
        points = {n: one for one in _measured(node, original) if (n := _in_flight(one)) and one.metrics}
        if points:
            found[node.node] = dict(sorted(points.items()))
        else:
            without.append(f"{node.node}: left out: {OTHER_LOAD if row.counted else row.reason or row.status}")
    if not found:
        raise InputError("\n".join(["No node has a point that the endpoints format can hold.", *without]))
    names = _short_names(list(found))
    return [Curve(node, names[node], points) for node, points in found.items()], without


def model_directory(model: ModelFacts) -> str:
    """Return the name of the model's directory, which MLCommons' checker compares with the model's name."""
    if known := MODELS.get(hub_name(model.name)):
        return known
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", hub_name(model.name).rpartition("/")[2]).strip("_")[:64]
    return name or "model"


def result_summary(measured: Measurement) -> Content:
    """Return result_summary.json: counts, and times in nanoseconds. Undefined values are absent."""
    metrics = measured.metrics
    if metrics is None:
        raise ValueError("a point has metrics")
    content: Content = {
        "disclaimer": f"{DISCLAIMER}.",
        "n_samples_issued": metrics.queries.completed + metrics.queries.failed,
        "n_samples_completed": metrics.queries.completed,
        "n_samples_failed": metrics.queries.failed,
    }
    if metrics.duration_s is not None:
        content["duration_ns"] = round(metrics.duration_s * 1e9)
    for name, field in TIMES.items():
        times: Distribution | None = getattr(metrics, field)
        if times is not None:
            content[name] = {
                "total": round(math.fsum(measured.times.ascending[field]) * NS_PER_MS),
                "percentiles": {key: round(getattr(times, part) * NS_PER_MS) for key, part in PERCENTILES.items()},
            }
    if metrics.tokens_per_s is not None:
        content["output_sequence_lengths"] = {"total": metrics.output_tokens, "percentiles": {}}
    return content


def point(curve: Curve, in_flight: int, answers: SystemFile | None) -> Content:
    """Return point.yaml: the settings. Seeds, cohort and shared directories are up to a submitter."""
    measured = curve.points[in_flight].result
    content: Content = {
        "concurrency": in_flight,
        "model_name": model_directory(curve.model),
        "model_notes": " ".join(notes(curve.points[in_flight])),
        "max_supported_concurrency": max(curve.points),
        # The run has neither MLCommons' minimum duration nor its seeds.
        "runtime_settings": {"load_pattern": "concurrency", "min_duration_ms": 0, "runtime": {}},
    }
    if answers and answers.endpoints_division:
        content["division"] = answers.endpoints_division
    if curve.model.dtype != NOT_REPORTED:
        content["model_precision"] = curve.model.dtype
    if link := _link(curve.model):
        content["link_to_model"] = link
    if measured.dataset is not None:
        content |= {"dataset": measured.dataset.name, "dataset_name": measured.dataset.name}
        content["dataset_type"] = "Performance"
    if warmup := _warmup(measured):
        content["warmup"] = warmup
    metrics = curve.points[in_flight].metrics
    # Not every engine reports them.
    if metrics and metrics.queries.completed and metrics.input_tokens:
        content["input_token_average"] = metrics.input_tokens / metrics.queries.completed
    return content


def system_desc(curve: Curve, in_flight: int, answers: SystemFile | None) -> Content:
    """Return system_desc.json: what the run knows of the node, and the user's `answers`."""
    seen = curve.environment
    gpus = f"{len(seen.gpus)}x {seen.gpus[0].name}" if seen.gpus else seen.cpu
    framework, other = software(curve.result, seen)
    metrics, most = curve.points[in_flight].metrics, curve.most_tokens_per_s
    content: Content = {
        # The viewer shows it beside each curve; nothing else is always visible.
        "submitter_org_names": DISCLAIMER,
        "submission_id": curve.result.run_id,
        "system_name": f"{answers.system_name if answers else gpus} ({curve.node})",
        "shortened_system_name": curve.short,
        "system_size": f"1 node, {gpus}",
        "system_node_ensemble_count": 1,
        "system_node_ensemble_total": 1,
        "max_supported_concurrency": max(curve.points),
        "serving_framework": framework,
        "config_summary_notes": f"{DISCLAIMER}.",
        "node_types": [_node_type(seen, answers, framework, other)],
    }
    if answers:
        content["system_availability_status"] = answers.status
        for name in ("system_type_detail", "availability_url", "target_availability_date"):
            if given := getattr(answers, name):
                content[name] = given
        if answers.endpoints_division:
            content["division"] = answers.endpoints_division
    if most and metrics and metrics.tokens_per_s is not None:
        content["tps_utilization"] = metrics.tokens_per_s / most
    return content


def notes(measured: Measurement) -> list[str]:
    """Return notes for a reader of a point, a sentence each."""
    result, metrics = measured.result, measured.metrics
    found = [f"{DISCLAIMER}."]
    if result.engine is not None and result.engine.simulated:
        found.append("SIMULATED: no model was run.")
    if result.verdict is not None and not result.verdict.valid:
        found.append("The benchmark's own verdict on this point is invalid.")
    thin = metrics.latency_ms.insufficient if metrics and metrics.latency_ms else {}
    if metrics and thin:
        needed = ", ".join(f"{name.upper()} ({count})" for name, count in thin.items())
        found.append(
            f"{metrics.queries.completed} answers are too few for {needed}: in brackets what 99 % confidence needs."
        )
    return found


def _warmup(result: NodeResult) -> Content | None:
    """Return how the engine was warmed up before the first point; None if unknown."""
    taken_s = result.stages_s.get("warm-up")
    if not result.warmup or taken_s is None or result.dataset is None:
        return None
    return {
        "duration_s": taken_s,
        # A run ends if one of them fails.
        "requests_issued": result.warmup,
        "requests_completed": result.warmup,
        "data_source": f"the first prompts of {result.dataset.name}",
        "concurrency": 1,
    }


def _node_type(seen: Environment, answers: SystemFile | None, framework: str, other: str) -> Content:
    content: Content = {
        "system_node_ensemble_id": 1,
        "number_of_nodes": 1,
        "host_processor_model_name": seen.cpu,
        "host_processor_vcpu_count": seen.cpu_count,
        "host_memory_capacity": gib(seen.memory_mib),
        "accelerator_info": [_accelerator(seen.gpus, seen, answers)] if seen.gpus else [],
        "operating_system": (answers and answers.operating_system) or seen.platform,
        "inference_backend": framework,
        "other_software_stack": other,
        "sw_notes": " ".join(note for note in (answers.sw_notes if answers else "", f"{DISCLAIMER}.") if note),
    }
    if seen.driver or not seen.gpus:
        content["driver"] = seen.driver or "N/A"
    asked = (
        *("host_processors_per_node", "host_processor_core_count", "host_memory_configuration", "host_storage_type"),
        *("host_storage_capacity", "host_networking", "host_network_card_count", "cooling", "hw_notes", "filesystem"),
    )
    given = {name: getattr(answers, name) for name in asked} if answers else {}
    return content | {name: value for name, value in given.items() if value}


def _accelerator(gpus: Sequence[Gpu], seen: Environment, answers: SystemFile | None) -> Content:
    content: Content = {
        "accelerator_model_name": gpus[0].name,
        "accelerators_per_node": len(gpus),
        "accelerator_memory_capacity": gib(gpus[0].memory_mib),
        "accelerator_memory_type": answers.accelerator_memory_configuration if answers else "",
        "accelerator_interconnect": answers.accelerator_interconnect if answers else "",
        "accelerator_host_interconnect": (answers and answers.accelerator_host_interconnect) or host_interconnect(seen),
    }
    return {name: value for name, value in content.items() if value}


def _measured(node: LoadedNode, original: LoadedNode) -> list[Measurement]:
    """Return the node's points: every step of a sweep, or the one load of a counted node."""
    if node.refused:
        return []
    if steps := steps_of(original):
        return list(steps.values())
    if not node.counted or node.result is None:
        return []
    return [Measurement(node.result, node.metrics, node.times, None, None, None, node.samples)]


def _in_flight(measured: Measurement) -> int | None:
    """Return the queries in flight on the whole node; None if the load is of another kind."""
    load, engine = measured.result.load, measured.result.engine
    return load.concurrency * engine.replicas if load and load.concurrency and engine else None


def _short_names(nodes: Sequence[str]) -> dict[str, str]:
    cut = [node[:SHORT_NAME] for node in nodes]
    if len(set(cut)) == len(cut):
        return dict(zip(nodes, cut, strict=True))
    return {node: f"node {number}" for number, node in enumerate(nodes, start=1)}


def _facts(result: NodeResult) -> ModelFacts:
    engine = result.engine
    name = engine.name if engine else result.resolved.profile.engine
    return model_facts(result.resolved.settings, name, engine.details if engine else None)


def _link(model: ModelFacts) -> str:
    """Return the address of the weights for a hub model with a known revision; else empty."""
    if is_directory_path(model.name) or model.revision in ("", NOT_REPORTED):
        return ""
    return f"https://huggingface.co/{model.name}/tree/{model.revision}"
