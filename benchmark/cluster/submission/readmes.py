"""What a submission holds for people: how each result was made, the source, and how the weights were treated."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from benchmark.cluster.submission.parts import Part, Scenario
from benchmark.cluster.submission.rules import ROUND, Division
from benchmark.settings import DEFAULT_MODEL, DEFAULT_REVISION, Settings, is_directory_path
from benchmark.text import environment

TEMPLATES = Path(__file__).parent / "templates"
# Settings that decide a number and hold nothing of the nodes or of their owner.
TOLD = (
    "benchmark_profile",
    "benchmark_target_qps",
    "benchmark_accuracy",
    "benchmark_audit",
    "benchmark_dtype",
    "benchmark_device",
    "benchmark_engine",
    "benchmark_replicas",
    "benchmark_repeats",
    "benchmark_mlperf_round",
)
DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
# Where an engine's options say that weights are changed.
QUANTIZATION = "quantization"


def render(template: str, **facts: Any) -> str:
    """Return a text from a template of this package."""
    return environment(TEMPLATES).get_template(template).render(facts)


def command(part: Part) -> str:
    """Return the command that asks for the same again: without paths, hosts and whatever else is the user's own."""
    settings = part.result.resolved.settings
    defaults = Settings()
    words = ["ansible-playbook", "playbooks/benchmark.yml"]
    for name in TOLD:
        value = getattr(settings, name, None)
        if name == "benchmark_profile":
            value = part.result.resolved.profile.name
        if value is not None and value != getattr(defaults, name, None):
            words += ["-e", f"{name}={value}"]
    return shlex.join(words)


def model(part: Part) -> str:
    """Return which weights: a hub id with its commit, or a directory's last name with the hash of its weights."""
    settings, seen = part.result.resolved.settings, part.environment
    if is_directory_path(settings.benchmark_model):
        return f"{Path(settings.benchmark_model).name} (SHA-256 of the weights {seen.model_sha256 or 'not known'})"
    return f"{settings.benchmark_model} at {settings.benchmark_model_revision}"


def is_reference_model(part: Part) -> bool:
    """Tell whether the weights are those that MLPerf's reference names."""
    settings = part.result.resolved.settings
    return (settings.benchmark_model, settings.benchmark_model_revision) == (DEFAULT_MODEL, DEFAULT_REVISION)


def quantization(part: Part) -> str:
    """Return how the weights were quantized; empty: they were not, as far as the settings say."""
    options = part.result.resolved.profile.engine_options
    return str(options.get(QUANTIZATION) or "")


def measurements(part: Part) -> dict[str, str]:
    """Return measurements.json: what went in, which weights, and what was done to them."""
    dtype = part.result.resolved.settings.benchmark_dtype
    quantized = quantization(part)
    return {
        "input_data_types": "int32",
        "retraining": "No",
        "starting_weights_filename": model(part),
        "weight_data_types": quantized or DTYPES[dtype],
        "weight_transformations": f"quantized: {quantized}" if quantized else f"none; loaded as {dtype}",
    }


def scenario_readme(name: str, scenario: Scenario, division: Division) -> str:
    """Return README.md of one scenario: each run with its command, its versions and its target."""
    runs = [
        {
            "id": part.run_id,
            "gives": ", ".join(
                what for what in ("performance", "accuracy", "audit") if getattr(scenario, what) is part
            ),
            "command": command(part),
            "profile": part.result.resolved.profile,
            "options": ", ".join(
                f"{key} {value}" for key, value in part.result.resolved.profile.scenario_options.items()
            ),
            "target": part.result.target_qps,
            "model": model(part),
            "packages": part.environment.server_packages or part.environment.packages,
            "simulated": bool(part.result.engine and part.result.engine.simulated),
        }
        for part in scenario.parts
    ]
    return render("scenario_readme.md.j2", name=name, runs=runs, division=division, round=ROUND)
