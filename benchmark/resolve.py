"""Resolve a user's variables into a node's order: settings with defaults, and the effective profile.

Every problem is found before any host is touched.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from benchmark.combinations import combination_problems
from benchmark.errors import InputError
from benchmark.faults import did_you_mean, sentences
from benchmark.profiles import NONE, Profile, load_profile
from benchmark.rundir import NODE_NAME
from benchmark.settings import RUN_WIDE, ResolvedSettings, Settings, check_settings
from benchmark.verdict import accuracy_paths, metric_paths

# The settings that decide which engine and model a node needs, used by `in_effect` and `device_in_effect`.
DECIDING = ("benchmark_profile", "benchmark_engine", "benchmark_accuracy", "benchmark_probes", "benchmark_device")
# The profile of a run that only probes.
HARDWARE = "hardware"


def resolve(variables: dict[str, Any]) -> ResolvedSettings:
    """Fill in defaults, check types and ranges and load the profile.

    Raises InputError with every problem, one sentence per line.
    """
    problems: list[str] = []
    settings: Settings | None = None
    try:
        settings = check_settings(variables)
    except InputError as error:
        problems += str(error).splitlines()
    profile: Profile | None = None
    name = variables.get("benchmark_profile", "quick")
    if isinstance(name, str) and name:
        try:
            profile = load_profile(name)
        except InputError as error:
            problems.append(str(error))
    if profile is not None:
        for limits, known in ((profile.limits, metric_paths()), (profile.accuracy_limits, accuracy_paths())):
            unknown = [limit.metric for limit in limits if limit.metric not in known]
            problems += [
                f"Profile {name}: limits name {metric}, which is not a metric{did_you_mean(metric, known)}"
                for metric in unknown
            ]
    if settings is not None and profile is not None:
        try:
            profile = in_effect(profile, settings)
            settings = settings.model_copy(update={"benchmark_device": device_in_effect(profile, settings)})
            problems += _without_model(profile, settings)
        except ValidationError as error:
            problems += sentences(error, Profile, before="benchmark_")
        except InputError as error:
            problems.append(str(error))
    if settings is not None and profile is not None:
        problems += combination_problems(settings, profile)
    searchable = profile is not None and profile.scenario_options.get("scenario") in ("Server", "Offline")
    if settings is not None and settings.benchmark_target_qps == "auto" and not searchable:
        problems.append(
            f"benchmark_target_qps is auto, but profile {name} has no rate to search for: give a number, or use "
            "mlperf-server, mlperf-interactive or mlperf-offline."
        )
    if settings is not None and profile is not None and settings.benchmark_audit and profile.scenario != "loadgen":
        problems.append(
            f"benchmark_audit is {settings.benchmark_audit}, but LoadGen does not drive profile {name}: use one "
            "of the mlperf- profiles."
        )
    if settings is not None and settings.python_env_wheelhouse and settings.python_env_torch_index_url:
        problems.append(
            "python_env_wheelhouse is set, so no node uses an index: leave python_env_torch_index_url empty, and give "
            "it to make wheelhouse (TORCH_INDEX_URL)."
        )
    if settings is not None and settings.benchmark_solo_first and not settings.benchmark_sync_start:
        problems.append("benchmark_solo_first needs benchmark_sync_start: nodes that do not wait are never alone.")
    if problems or settings is None or profile is None:
        raise InputError("\n".join(problems))
    return ResolvedSettings(settings=settings, profile=profile)


def in_effect(profile: Profile, settings: Settings) -> Profile:
    """Return the effective profile, with the settings' overrides: nodes with different ones are not summed."""
    if settings.benchmark_probes == "only" and profile.loads_model:
        return load_profile(HARDWARE)
    asked = settings.benchmark_engine
    if asked and (asked != NONE) != profile.loads_model:
        what = f"the profile {profile.name} uses {'a' if profile.loads_model else 'no'} model"
        raise InputError(f"benchmark_engine is {asked}, but {what}: leave it out, or use another profile.")
    changes: dict[str, Any] = {}
    if settings.benchmark_accuracy != "profile":
        changes["accuracy"] = settings.benchmark_accuracy
    if settings.benchmark_engine:
        # The engine is set explicitly, so there is no fallback.
        changes["fallback_engine"] = ""
    if settings.benchmark_engine not in ("", profile.engine):
        # The profile's options, and its fallback, are for another engine.
        changes |= {"engine": settings.benchmark_engine, "engine_options": {}, "without_model_or_gpu": False}
    if settings.benchmark_engine_options:
        own = changes.get("engine_options", profile.engine_options)
        changes["engine_options"] = {**own, **settings.benchmark_engine_options}
    return Profile.model_validate({**profile.model_dump(), **changes}) if changes else profile


def device_in_effect(profile: Profile, settings: Settings) -> str:
    """Return the device in effect: never a GPU if the effective profile does not need one."""
    return "cpu" if profile.without_model_or_gpu else settings.benchmark_device


def _without_model(profile: Profile, settings: Settings) -> list[str]:
    """Return the settings that need a model, if the profile has none."""
    if profile.loads_model:
        return []
    asked = {
        "benchmark_repeats": settings.benchmark_repeats > 1,
        "benchmark_solo_first": settings.benchmark_solo_first,
        "benchmark_accuracy": settings.benchmark_accuracy not in ("profile", "off"),
    }
    problems = [
        f"{name} is set, but the profile {profile.name} uses no model: use another profile, or leave it out."
        for name, given in asked.items()
        if given
    ]
    if settings.benchmark_probes == "off":
        problems.append(
            f"benchmark_probes is off, but the profile {profile.name} measures nothing else: leave it at on."
        )
    return problems


def resolve_nodes(variables_by_node: dict[str, dict[str, Any]]) -> dict[str, ResolvedSettings]:
    """Resolve every node's settings; one InputError lists each problem once, with the nodes that have it."""
    if not variables_by_node:
        raise InputError("The group gpu_nodes is empty: add at least one host to the inventory.")
    resolved: dict[str, ResolvedSettings] = {}
    nodes_by_problem: dict[str, list[str]] = {}
    for node, variables in variables_by_node.items():
        if not NODE_NAME.fullmatch(node):
            nodes_by_problem.setdefault(
                "A node's name becomes a directory: use letters, digits, '.', '_' and '-' "
                "(give the host an alias and put its address into ansible_host).",
                [],
            ).append(node)
            continue
        try:
            resolved[node] = resolve(variables)
        except InputError as error:
            for problem in str(error).splitlines():
                nodes_by_problem.setdefault(problem, []).append(node)
    problems = [f"{problem} [{_some(nodes)}]" for problem, nodes in nodes_by_problem.items()]
    problems += [p for name in RUN_WIDE if (p := _disagreement(name, resolved))]
    if problems:
        raise InputError("\n".join(problems))
    return resolved


def _disagreement(name: str, resolved: dict[str, ResolvedSettings]) -> str | None:
    nodes_by_value: dict[Any, list[str]] = {}
    for node, one in resolved.items():
        nodes_by_value.setdefault(getattr(one.settings, name), []).append(node)
    if len(nodes_by_value) < 2:
        return None
    values = "; ".join(f"{value!r} [{_some(nodes)}]" for value, nodes in nodes_by_value.items())
    return f"{name} belongs to the whole run and differs between nodes: {values}. Set it once, for all of gpu_nodes."


def _some(nodes: list[str], most: int = 5) -> str:
    rest = len(nodes) - most
    return ", ".join(nodes[:most]) + (f" and {rest} more" if rest > 0 else "")
