"""The texts of a submission: how each result was made, the source, and how the weights were treated."""

from __future__ import annotations

import shlex
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmark.cluster.submission.parts import Part, Scenario
from benchmark.cluster.submission.rules import ROUND, Division
from benchmark.provisioned import ENGINES
from benchmark.served import ENDPOINT, NOT_REPORTED, QUANTIZATION, ModelFacts, hub_name, model_facts
from benchmark.settings import Settings
from benchmark.settings.measurement import DEFAULT_MODEL, DEFAULT_REVISION, is_directory_path
from benchmark.text.templating import environment

TEMPLATES = Path(__file__).parent / "templates"
# Settings that affect a number and contain nothing about the nodes or their owner.
REPORTED = (
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


def render(template: str, **facts: Any) -> str:
    """Return a text from a template of this package."""
    return environment(TEMPLATES).get_template(template).render(facts)


def command(part: Part) -> str:
    """Return the command to run it again, without paths, hosts and other private values."""
    settings = part.result.resolved.settings
    defaults = Settings()
    words = ["ansible-playbook", "playbooks/benchmark.yml"]
    for name in REPORTED:
        value = getattr(settings, name, None)
        if name == "benchmark_profile":
            value = part.result.resolved.profile.name
        if value is not None and value != getattr(defaults, name, None):
            words += ["-e", f"{name}={value}"]
    return shlex.join(words)


def model(part: Part) -> str:
    """Return the weights: a hub id with its commit, or a directory's last name with the hash of its weights.

    For a server, its own report: settings have no effect on it.
    """
    facts = _facts(part)
    if is_directory_path(facts.name) and not _is_served(part):
        return f"{Path(facts.name).name} (SHA-256 of the weights {part.environment.model_sha256 or 'not known'})"
    name = hub_name(facts.name)
    name = Path(name).name if is_directory_path(name) else name
    return f"{name} (revision {NOT_REPORTED})" if facts.revision == NOT_REPORTED else f"{name} at {facts.revision}"


def is_reference_model(part: Part) -> bool:
    """Return whether the weights are those of MLPerf's reference, as far as can be shown."""
    facts = _facts(part)
    return (hub_name(facts.name), facts.revision) == (DEFAULT_MODEL, DEFAULT_REVISION)


def quantization(part: Part) -> str:
    """Return the quantization of the weights; empty if none, as far as settings and server tell."""
    if _is_served(part):
        reported = _details(part).get("reported")
        return str(reported.get("quantization") or "") if isinstance(reported, dict) else ""
    profile = part.result.resolved.profile
    known = ENGINES[profile.engine].quantization_words if profile.engine in ENGINES else ()
    words = profile.engine_options.get("arguments") or []
    for word, following in zip_longest(map(str, words), map(str, words[1:]), fillvalue=""):
        name, _, value = word.partition("=")
        if name.replace("_", "-") in known:
            return value or following
    return str(_details(part).get(QUANTIZATION) or "")


def dtype(part: Part) -> str:
    """Return the precision of the loaded weights ("float16"), or that a server does not report it."""
    return _facts(part).dtype


def measurements(part: Part) -> dict[str, str]:
    """Return measurements.json: the input, the weights, and their transformations."""
    loaded, quantized = dtype(part), quantization(part)
    return {
        "input_data_types": "int32",
        "retraining": "No",
        "starting_weights_filename": model(part),
        "weight_data_types": quantized or DTYPES.get(loaded, loaded),
        "weight_transformations": f"quantized: {quantized}" if quantized else f"none; loaded as {loaded}",
    }


def _facts(part: Part) -> ModelFacts:
    engine = part.result.resolved.profile.engine
    return model_facts(part.result.resolved.settings, engine, _details(part))


def _details(part: Part) -> dict[str, Any]:
    return dict(part.result.engine.details) if part.result.engine else {}


def _is_served(part: Part) -> bool:
    """Return whether the engine is a server whose model the run did not choose."""
    return part.result.resolved.profile.engine == ENDPOINT


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
