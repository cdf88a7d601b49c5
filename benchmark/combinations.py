"""What settings and profile cannot do together, found on the controller before a node is touched.

Only what cannot work is refused. What merely has no effect is let be: one inventory serves several profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from benchmark import continuous_options, loadgen_options, simulated_options
from benchmark.errors import InputError
from benchmark.files import first_fault
from benchmark.profiles import Profile
from benchmark.settings import Settings
from benchmark.vllm import VllmOptions, check_vllm_options

SERVED, VLLM, CONTINUOUS, SEQUENTIAL, SIMULATED = "endpoint", "vllm", "continuous", "sequential", "simulated"
# What each engine can be asked; None: nothing. `vllm` is checked with its other settings.
ENGINE_OPTIONS: dict[str, type[BaseModel] | None] = {
    CONTINUOUS: continuous_options.Options,
    SIMULATED: simulated_options.Options,
    SEQUENTIAL: None,
    SERVED: None,
}
SCENARIO_OPTIONS: dict[str, type[BaseModel] | None] = {"loadgen": loadgen_options.Options, "closed_loop": None}
# Those whose prompts are token ids without a text, and those whose prompts have references.
WITHOUT_TEXT, WITH_REFERENCES = ("synthetic",), ("cnn_dailymail",)
# What vLLM is asked for at most where nobody says (node/serving/vllm.py).
VLLM_TOKENS = 8192

Check = Callable[[Settings, Profile], Iterator[str]]


def combination_problems(settings: Settings, profile: Profile) -> list[str]:
    """Return why a profile, with what the settings put in its place, cannot be run with them; a sentence each."""
    checks: tuple[Check, ...] = (_options, _replicas, _continuous, _vllm, _servers, _schedule, _accuracy)
    return [problem for check in checks for problem in check(settings, profile)]


def _options(settings: Settings, profile: Profile) -> Iterator[str]:
    for kind, name, known, given in (
        ("engine", profile.engine, ENGINE_OPTIONS, dict(profile.engine_options)),
        ("scenario", profile.scenario, SCENARIO_OPTIONS, dict(profile.scenario_options)),
    ):
        if name not in known or not (options := known[name]):
            if name in known and given:
                yield f"The {kind} {name} has no options and is given {', '.join(given)}.{_owner(kind, given)}"
            continue
        try:
            options.model_validate(given)
        except ValidationError as error:
            yield (
                f"The {kind} {name}: {first_fault(error, 'its options')}; its options are "
                f"{', '.join(options.model_fields)}.{_owner(kind, given, options)}"
            )


def _owner(kind: str, given: dict[str, Any], own: type[BaseModel] | None = None) -> str:
    """Say which engine an option belongs to that this one has not."""
    if kind != "engine":
        return ""
    others = {**ENGINE_OPTIONS, VLLM: VllmOptions}
    strange = [name for name in given if own is None or name not in own.model_fields]
    for name in strange:
        if owners := [engine for engine, options in others.items() if options and name in options.model_fields]:
            return f" {name} is an option of {' and '.join(owners)}."
    return ""


def _replicas(settings: Settings, profile: Profile) -> Iterator[str]:
    asked = settings.benchmark_replicas
    if not isinstance(asked, int) or asked == 1:
        return
    if profile.engine in (SEQUENTIAL, SIMULATED):
        yield (
            f"benchmark_replicas is {asked} and the engine {profile.engine} runs once on a node: take the engine "
            "continuous, or leave benchmark_replicas at auto."
        )
    if profile.engine == VLLM and settings.benchmark_device == "cpu":
        yield f"benchmark_replicas is {asked} and vLLM serves one copy on the CPU: leave benchmark_replicas at auto."


def _continuous(settings: Settings, profile: Profile) -> Iterator[str]:
    if profile.engine != CONTINUOUS:
        return
    try:
        options = continuous_options.Options.model_validate(dict(profile.engine_options))
    except ValidationError:
        return
    on_cpu = settings.benchmark_device == "cpu"
    if on_cpu and (options.use_cuda_graph or options.use_async_batching):
        yield "The engine continuous: use_cuda_graph and use_async_batching need a GPU, and benchmark_device is cpu."
    if "flash" in options.attention and (on_cpu or settings.benchmark_dtype == "float32"):
        needed = "a GPU, and benchmark_device is cpu" if on_cpu else "benchmark_dtype float16 or bfloat16"
        yield f"The engine continuous: attention {options.attention} needs {needed}."
    most = profile.generation.max_new_tokens
    if options.num_blocks is not None and options.num_blocks * options.page_size <= most:
        yield (
            f"The engine continuous: {options.num_blocks} pages (num_blocks) of {options.page_size} tokens (page_size) "
            f"do not hold one answer of {most} tokens."
        )


def _vllm(settings: Settings, profile: Profile) -> Iterator[str]:
    if profile.engine != VLLM:
        return
    try:
        options = check_vllm_options(dict(profile.engine_options))
    except InputError:
        return  # reported by vllm_problems
    if settings.benchmark_device == "cpu" and options.tensor_parallel_size > 1:
        yield "The engine vllm: tensor_parallel_size spreads a model over GPUs, and benchmark_device is cpu."
    longest = options.max_model_len or VLLM_TOKENS
    needed = _longest_prompt(profile) + profile.generation.max_new_tokens
    if needed > longest:
        yield (
            f"The engine vllm: max_model_len is {longest}, and the profile's longest prompt and its answer take "
            f"{needed} tokens at least: raise it, or take shorter ones."
        )


def _longest_prompt(profile: Profile) -> int:
    """Return the least tokens that the longest prompt is known to have."""
    lengths = dict(profile.dataset_options).get("input_tokens", 1) if profile.dataset == "synthetic" else 1
    longest = max(lengths) if isinstance(lengths, (list, tuple)) and lengths else lengths
    return longest if isinstance(longest, int) else 1


def _servers(settings: Settings, profile: Profile) -> Iterator[str]:
    named = [name for name in ("benchmark_endpoint_urls", "benchmark_endpoint_start") if getattr(settings, name)]
    if profile.engine == SERVED and not named:
        yield (
            "The engine is endpoint and there is none: set benchmark_endpoint_urls to running servers, or "
            "benchmark_endpoint_start to a command that starts one."
        )
    if profile.engine in (SEQUENTIAL, CONTINUOUS) and named:
        # One would take the figures for the server's.
        yield (
            f"{' and '.join(named)} {'are' if len(named) > 1 else 'is'} set, and the engine {profile.engine} asks no "
            "server: set benchmark_engine to endpoint, or leave it empty."
        )
    if (
        profile.engine in (SERVED, VLLM)
        and settings.benchmark_endpoint_api == "chat"
        and profile.dataset in WITHOUT_TEXT
    ):
        yield (
            f"benchmark_endpoint_api is chat, and the prompts of the dataset {profile.dataset} are token ids without a "
            "text: leave it at auto, or set completions."
        )


def _schedule(settings: Settings, profile: Profile) -> Iterator[str]:
    server = profile.scenario_options.get("scenario") == "Server"
    if profile.engine == SEQUENTIAL and server and profile.accuracy != "only":
        yield (
            "The engine sequential answers one query before it takes the next, and the scenario Server issues them "
            "when they are due: take the engine continuous, vllm or endpoint."
        )


def _accuracy(settings: Settings, profile: Profile) -> Iterator[str]:
    judged = profile.greedy_prompts > 0 or profile.dataset in WITH_REFERENCES
    if profile.accuracy == "only" and not judged:
        yield (
            f"benchmark_accuracy is only, and there is nothing to judge: the dataset {profile.dataset} has no "
            "references and the profile no greedy_prompts."
        )
