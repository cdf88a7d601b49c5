"""Combinations of settings and profile that cannot work, refused on the controller before a node is touched.

Settings without effect are accepted: one inventory serves several profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from pydantic import BaseModel, ValidationError

from benchmark import closed_loop_options, continuous_options
from benchmark.dataset_options import ConversationsOptions, SyntheticOptions, bounds_of
from benchmark.errors import InputError
from benchmark.faults import sentence
from benchmark.option_models import (
    CLOSED_LOOP,
    CONTINUOUS,
    DATASET_OPTIONS,
    ENGINE_OPTIONS,
    SCENARIO_OPTIONS,
    SEQUENTIAL,
    SERVED,
    WITH_REFERENCES,
    WITHOUT_TEXT,
)
from benchmark.probe_floors import floor_problems
from benchmark.profiles import SIMULATED, Profile
from benchmark.provisioned import ENGINES, FROM_SERVERS
from benchmark.provisioned_engine import ProvisionedEngine
from benchmark.settings import Settings
from benchmark.several_nodes import group_problems, place_problems, system_problems

Check = Callable[[Settings, Profile], Iterator[str]]


def combination_problems(settings: Settings, profile: Profile) -> list[str]:
    """Return, in sentences, why the effective profile cannot be run with these settings."""
    checks: tuple[Check, ...] = (
        _existing,
        _without_model_or_gpu,
        _provisioned,
        _options,
        _replicas,
        _continuous,
        _servers,
        _schedule,
        _in_flight,
        _sweep,
        _workload,
        _accuracy,
        floor_problems,
        place_problems,
        system_problems,
        group_problems,
    )
    return [problem for check in checks for problem in check(settings, profile)]


def _options(settings: Settings, profile: Profile) -> Iterator[str]:
    engines = {**ENGINE_OPTIONS, **{name: engine.options for name, engine in ENGINES.items()}}
    for kind, name, known, given in (
        ("engine", profile.engine, engines, dict(profile.engine_options)),
        ("scenario", profile.scenario, SCENARIO_OPTIONS, dict(profile.scenario_options)),
        ("dataset", profile.dataset, DATASET_OPTIONS, dict(profile.dataset_options)),
    ):
        if name not in known:  # a user's own, which checks its options itself
            continue
        options = known[name]
        if options is None:
            for option in given:
                yield (
                    f"{_place(kind, option, settings)}{option} is not an option of the {kind} {name}, which has none."
                    f"{_owner(option, engines if kind == 'engine' else {})}"
                )
            continue
        try:
            options.model_validate(given)
        except ValidationError as error:
            for fault in error.errors():
                option = str(next(iter(fault["loc"]), ""))
                before, noun = _place(kind, option, settings), f"an option of the {kind} {name}"
                elsewhere = engines if kind == "engine" and fault["type"] == "extra_forbidden" else {}
                yield sentence(fault, options, before=before, noun=noun) + _owner(option, elsewhere)


def _place(kind: str, option: str, settings: Settings) -> str:
    """Return where an option is set: in the settings, or in the profile."""
    if kind == "engine" and option in settings.benchmark_engine_options:
        return "benchmark_engine_options."
    return f"Profile {settings.benchmark_profile}: {kind}_options."


def _owner(option: str, engines: Mapping[str, type[BaseModel] | None]) -> str:
    """Return which engines have an option that another one lacks."""
    owners = [engine for engine, options in engines.items() if options and option in options.model_fields]
    return f" {option} is an option of {' and '.join(owners)}." if owners else ""


def _replicas(settings: Settings, profile: Profile) -> Iterator[str]:
    asked = settings.benchmark_replicas
    if not isinstance(asked, int) or asked == 1:
        return
    if profile.engine in (SEQUENTIAL, SIMULATED):
        yield (
            f"benchmark_replicas is {asked} and the engine {profile.engine} runs once on a node: use the engine "
            "continuous, or leave benchmark_replicas at auto."
        )
    if profile.engine in ENGINES and settings.benchmark_device == "cpu":
        yield (
            f"benchmark_replicas is {asked} and {ENGINES[profile.engine].title} serves one copy on the CPU: leave "
            "benchmark_replicas at auto."
        )


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
    if options.require_cuda_graph and not on_cpu:
        if options.use_cuda_graph is False:
            yield (
                "The engine continuous: require_cuda_graph is true and use_cuda_graph is false: set both to false, or "
                "leave use_cuda_graph out."
            )
        if options.attention != "auto" and "flash" not in options.attention:
            yield (
                f"The engine continuous: attention {options.attention} has no steps that can be CUDA graphs: set "
                "require_cuda_graph to false too."
            )
    most = profile.generation.max_new_tokens
    if options.num_blocks is not None and options.num_blocks * options.page_size <= most:
        yield (
            f"The engine continuous: {options.num_blocks} pages (num_blocks) of {options.page_size} tokens (page_size) "
            f"do not hold one answer of {most} tokens."
        )


def _existing(settings: Settings, profile: Profile) -> Iterator[str]:
    used = ["python_env", *([profile.engine] if profile.engine in ENGINES else [])]
    for role in (role for role in used if not getattr(settings, f"{role}_manage")):
        directory = getattr(settings, f"{role}_dir")
        if directory == Settings.model_fields[f"{role}_dir"].default:
            yield (
                f"{role}_manage is false, so {role}_dir must name the existing environment, the directory with "
                f"bin/python3 in it: it is still {directory}."
            )
        if role == "python_env" and PurePosixPath(settings.python_env_code_dir).is_relative_to(directory):
            yield (
                f"python_env_code_dir is {settings.python_env_code_dir}, within python_env_dir ({directory}), where "
                "nothing is written because python_env_manage is false: set it to a directory outside."
            )


def _without_model_or_gpu(settings: Settings, profile: Profile) -> Iterator[str]:
    if not profile.without_model_or_gpu:
        return
    named = f"Profile {settings.benchmark_profile}: without_model_or_gpu"
    if profile.engine != SIMULATED:
        yield f"{named} is for the engine {SIMULATED}, and {profile.engine} loads a model: leave it out."
    if profile.dataset in (*WITHOUT_TEXT, *WITH_REFERENCES):
        yield f"{named} is true, and the dataset {profile.dataset} is made of a model's tokens: use curated."


def _provisioned(settings: Settings, profile: Profile) -> Iterator[str]:
    if not (engine := ENGINES.get(profile.engine)):
        return
    yield from _its_environment(settings, engine)
    try:
        options = engine.check_options(profile.engine_options)
    except InputError:
        return  # reported for the options
    caching = [word for word in options.arguments if engine.switches_caching_on(word)]
    if caching and not profile.prefix_caching:
        yield (
            f"The engine {engine.name}: arguments: {caching[0]} answers repeated prompts without computing them: "
            "leave it out, or use a profile with prefix_caching: true."
        )
    gpus, spread = settings.benchmark_replicas, options.gpus_of_a_copy
    if isinstance(gpus, int) and gpus % spread:
        yield (
            f"benchmark_replicas is {gpus} and one copy of the model uses {spread} GPUs (tensor_parallel_size x "
            f"pipeline_parallel_size): with the engine {engine.name} the former is the number of GPUs used, which must "
            "be a multiple of the latter."
        )
    if settings.benchmark_device == "cpu" and spread > 1 and not settings.benchmark_group:
        yield (
            f"The engine {engine.name}: tensor_parallel_size and pipeline_parallel_size spread a model over GPUs, but "
            "benchmark_device is cpu."
        )
    longest = options.max_model_len or engine.max_model_len
    needed = _longest_prompt(profile) + profile.generation.max_new_tokens
    if needed > longest:
        yield (
            f"The engine {engine.name}: max_model_len is {longest}, but the profile's longest prompt and its answer "
            f"take at least {needed} tokens: raise it, or use shorter ones."
        )


def _its_environment(settings: Settings, engine: ProvisionedEngine) -> Iterator[str]:
    name, pins = engine.name, engine.setting(settings, "requirements")
    if settings.benchmark_endpoint_start or settings.benchmark_endpoint_urls:
        yield (
            f"The engine {name} starts a server of its own: leave benchmark_endpoint_urls and "
            "benchmark_endpoint_start empty, or use the engine endpoint."
        )
    if not engine.setting(settings, "manage"):
        return
    if settings.benchmark_device == "cpu" and pins == engine.lock.file:
        yield (
            f"benchmark_device is cpu, and {pins} locks {engine.title}'s build for CUDA: set {name}_requirements to "
            f"{engine.cpu_lock.file if engine.cpu_lock else 'a file that pins its build for the CPU'}."
        )
    if settings.benchmark_device == "cuda" and engine.cpu_lock and pins == engine.cpu_lock.file:
        yield (
            f"benchmark_device is cuda, and {pins} locks {engine.title}'s build for the CPU: leave {name}_requirements "
            f"at {engine.lock.file}."
        )
    if settings.python_env_wheelhouse and not engine.setting(settings, "wheelhouse"):
        yield (
            f"python_env_wheelhouse is set, so no node asks an index: {engine.title} needs a wheelhouse too (make "
            f"wheelhouse WHEELHOUSE=wheelhouse-{name} REQUIREMENTS={pins}, then {name}_wheelhouse)."
        )


def _longest_prompt(profile: Profile) -> int:
    """Return the number of tokens that the longest prompt has at least."""
    if profile.dataset != "synthetic":
        return 1
    try:
        return SyntheticOptions.model_validate(dict(profile.dataset_options)).longest
    except ValidationError:
        return 1  # reported for the options


def _servers(settings: Settings, profile: Profile) -> Iterator[str]:
    named = [name for name in ("benchmark_endpoint_urls", "benchmark_endpoint_start") if getattr(settings, name)]
    if profile.engine == SERVED and not named:
        yield (
            "The engine is endpoint, but no server is set: set benchmark_endpoint_urls to running servers, or "
            "benchmark_endpoint_start to a command that starts one."
        )
    if profile.engine in (SEQUENTIAL, CONTINUOUS) and named:
        # The figures would be mistaken for the server's.
        yield (
            f"{' and '.join(named)} {'are' if len(named) > 1 else 'is'} set, but the engine {profile.engine} uses no "
            "server: set benchmark_engine to endpoint, or leave it empty."
        )
    if (
        profile.engine in (SERVED, *ENGINES)
        and settings.benchmark_endpoint_api == "chat"
        and profile.dataset in WITHOUT_TEXT
    ):
        yield (
            f"benchmark_endpoint_api is chat, and the prompts of the dataset {profile.dataset} are token ids without a "
            "text: leave it at auto, or set completions."
        )


def _schedule(settings: Settings, profile: Profile) -> Iterator[str]:
    # An audit issues its queries like a measurement.
    if profile.engine == SEQUENTIAL and profile.scheduled and (profile.accuracy != "only" or settings.benchmark_audit):
        yield (
            "The engine sequential answers one query before it takes the next, but a schedule issues them "
            f"when they are due: use the engine continuous, {FROM_SERVERS}."
        )


def _in_flight(settings: Settings, profile: Profile) -> Iterator[str]:
    if profile.scenario != CLOSED_LOOP:
        return
    try:
        options = closed_loop_options.Options.model_validate(dict(profile.scenario_options))
    except ValidationError:
        return  # reported for the options
    most = max(profile.sweep.concurrency, default=1) if profile.sweep else options.concurrency
    if most > 1 and SEQUENTIAL in (profile.engine, profile.fallback_engine):
        # Queries that queue before the engine are not in flight.
        yield (
            f"The engine {SEQUENTIAL} answers one query before it takes the next, but {most} should be in flight: use "
            f"the engine continuous, {FROM_SERVERS}, or set concurrency to 1."
        )
    if profile.samples is not None and (options.min_query_count or options.max_duration_ms):
        yield (
            f"Profile {settings.benchmark_profile}: samples is {profile.samples}, but scenario_options set when "
            "to stop (min_query_count, max_duration_ms): give one or the other."
        )


def _sweep(settings: Settings, profile: Profile) -> Iterator[str]:
    if profile.sweep is None:
        return
    scenario = profile.scenario_options.get("scenario")
    if profile.sweep.concurrency and profile.scenario != CLOSED_LOOP:
        yield (
            f"The profile's sweep: concurrency needs the scenario closed_loop: {profile.scenario} decides by itself "
            "how many are in flight."
        )
    if profile.sweep.rate and (profile.scenario != "loadgen" or scenario in ("Offline", "SingleStream")):
        yield (
            "The profile's sweep: rate needs LoadGen's scenario Server, whose rate is set for each step, and not "
            f"{scenario or profile.scenario}."
        )
    asked = {
        "benchmark_repeats": settings.benchmark_repeats > 1,
        "benchmark_solo_first": settings.benchmark_solo_first,
        "benchmark_audit": bool(settings.benchmark_audit),
        "benchmark_target_qps": settings.benchmark_target_qps == "auto" and bool(profile.sweep.rate),
    }
    for name, given in asked.items():
        if given:
            yield (
                f"{name} is {getattr(settings, name)}, and the profile {profile.name} measures under one load after "
                "the other: take another profile, or leave it."
            )


def _workload(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield what a dataset and a scenario require of each other, and of the settings."""
    if (profile.dataset == "conversations") != (profile.scenario == "conversations"):
        yield (
            f"The dataset is {profile.dataset} and the scenario {profile.scenario}: the turns of the dataset "
            "conversations are put together by the scenario conversations, which takes no other."
        )
    if profile.replays and profile.dataset != "trace":
        yield (
            f"scenario_options: arrivals is trace, and the dataset {profile.dataset} has no times of its own: take the "
            "dataset trace."
        )
    if profile.dataset == "trace" and not settings.benchmark_dataset_path:
        yield "The dataset trace needs benchmark_dataset_path: the trace's file on the node."
    options = DATASET_OPTIONS.get(profile.dataset)
    if options is not SyntheticOptions and options is not ConversationsOptions:
        return
    try:
        drawn = options.model_validate(dict(profile.dataset_options)).output_tokens
    except ValidationError:
        return  # reported for the options
    most = profile.generation.max_new_tokens
    if drawn is not None and bounds_of(drawn)[1] > most:
        yield (
            f"Profile {settings.benchmark_profile}: dataset_options.output_tokens goes up to {bounds_of(drawn)[1]:g}, "
            f"and generation.max_new_tokens is {most}: raise it."
        )


def _accuracy(settings: Settings, profile: Profile) -> Iterator[str]:
    judged = profile.greedy_prompts > 0 or profile.dataset in WITH_REFERENCES
    if profile.accuracy == "only" and not judged:
        yield (
            f"benchmark_accuracy is only, but there is nothing to judge: the dataset {profile.dataset} has no "
            "references and the profile no greedy_prompts."
        )
