"""The settings a user edits, under the very names that they have in the inventory.

One definition serves the inventory (checked on the controller before any host is touched), the node and the
result files. The roles' defaults, specs and tables and docs/settings.md are made from it: `make generate`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from fractions import Fraction
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from benchmark.errors import InputError
from benchmark.profiles import Profile, load_profile
from benchmark.secret_settings import NAMES as SECRETS
from benchmark.vllm import ENGINE as VLLM
from benchmark.vllm import LOCK as VLLM_LOCK
from benchmark.vllm import vllm_problems

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
# The commit that MLPerf's reference implementation for llama3.1-8b pins.
DEFAULT_REVISION = "be673f326cab4cd22ccfef76109faf68e41aa5f1"
DEFAULT_DATASET = "abisee/cnn_dailymail"
# The last commit of the dataset's repository: its files have been Parquet, without a loading script, since then.
DEFAULT_DATASET_REVISION = "96df5e686bee6baa90b8bee7c28b81fa3fa6223d"

# The newest round of MLPerf Inference whose rules are known here; the first with llama3.1-8b was 5.1.
DEFAULT_ROUND: Literal["6.1"] = "6.1"

# These belong to the run, not to a node: all nodes must have the same.
RUN_WIDE = (
    "benchmark_results_dir",
    "benchmark_fail_on_invalid",
    "benchmark_sync_start",
    "benchmark_sync_timeout_s",
    "benchmark_solo_first",
    "benchmark_repeats",
    "benchmark_min_nodes",
    "benchmark_drift",
    "benchmark_mlperf_round",
    "benchmark_audit",
)

# Of a URL's query string.
_SECRET_PARAMETER = re.compile(
    r"(?:^|[-_.]|api|access)(?:key|token|secret|password|passwd|sig|signature)$", re.IGNORECASE
)

NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

NonEmpty = Annotated[str, Field(min_length=1)]


def _rate_or_auto(value: Any) -> Any:
    """Return a number above zero or "auto"; one message for whatever else it is, where a union has one per type."""
    if value == "auto":
        return value
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError("a number greater than 0, or auto, is needed")
    return number


def _as_text(value: Any) -> Any:
    """Return a number as YAML reads 6.0 as the text that was meant."""
    return str(value) if type(value) is float else value


def _count_or_auto(value: Any) -> Any:
    number = _rate_or_auto(value)
    if number != "auto" and number != int(number):
        raise ValueError("a whole number greater than 0, or auto, is needed")
    return number if number == "auto" else int(number)


def _number_or_share(value: Any) -> Any:
    """Return a whole number of at least 1, or a percentage above 0 % and up to 100 % as the text that it came as."""
    text = "" if isinstance(value, bool) else str(value).strip()
    share = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", text)
    if share and 0 < float(share[1]) <= 100:
        return f"{share[1]}%"
    if re.fullmatch(r"[0-9]+", text) and int(text) >= 1:
        return int(text)
    raise ValueError("a whole number greater than 0, or a percentage such as 80%, is needed")


def needed_nodes(min_nodes: int | str, asked: int) -> int:
    """Return how many of the nodes `asked` must be counted: the number, or the percentage of them, rounded up."""
    if isinstance(min_nodes, int):
        return min_nodes
    return max(1, math.ceil(Fraction(min_nodes.rstrip("%")) * asked / 100))


class Settings(BaseModel):
    """Every setting of one node. Paths are the node's unless the description says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    benchmark_profile: NonEmpty = Field(
        "quick",
        description=(
            "a profile's name (benchmark/profiles/), or the path of a YAML file of your own on the controller"
        ),
    )
    benchmark_model: NonEmpty = Field(
        DEFAULT_MODEL, description="hub id, or a directory on the node, which is only checked"
    )
    benchmark_model_revision: NonEmpty = Field(
        DEFAULT_REVISION,
        description=(
            "commit, tag or branch of a hub model; the default is the commit that MLPerf's reference "
            "pins. Only a commit is pinned, and only then a second run asks no network"
        ),
    )
    benchmark_dataset_path: str = Field(
        "",
        description=(
            "your own cnn_eval.json on the node; empty: what hf_cache prepared, where the profile asks for it"
        ),
    )
    benchmark_dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="the weights' precision")
    benchmark_device: Literal["cuda", "cpu"] = Field(
        "cuda", description="without a GPU a run on cuda fails: it never falls back to the CPU by itself"
    )
    benchmark_require_idle_gpus: bool = Field(
        True,
        description=(
            "whether another process that computes on one of the GPUs fails the node before anything "
            "is loaded; one that comes later makes the verdict invalid"
        ),
    )
    benchmark_target_qps: Annotated[float | Literal["auto"], BeforeValidator(_rate_or_auto)] = Field(
        0.5,
        description=(
            "queries per second per GPU that the verdict is held against; auto: the highest valid rate is searched for"
        ),
    )
    benchmark_accuracy: Literal["profile", "off", "with-performance", "only"] = Field(
        "profile", description="whether the answers are judged too; profile: as it says"
    )
    benchmark_mlperf_round: Annotated[Literal["5.1", "6.0", "6.1"], BeforeValidator(_as_text)] = Field(
        DEFAULT_ROUND,
        description="round of MLPerf Inference whose seeds LoadGen takes; its limits are those of all three",
    )
    benchmark_audit: Literal["", "TEST06"] = Field(
        "", description="MLPerf's compliance test that is run after measuring and accuracy; empty: none"
    )
    benchmark_engine: str = Field(
        "",
        description=(
            "sequential, continuous, vllm, endpoint or simulated in the profile's place; empty: the profile's"
        ),
    )
    benchmark_engine_options: dict[str, Any] = Field({}, description="options of the engine, over those of the profile")
    benchmark_replicas: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)] = Field(
        "auto", description="engines on a node, one GPU each; auto: the number of visible GPUs"
    )
    benchmark_endpoint_urls: list[NonEmpty] = Field(
        [],
        description=(
            "OpenAI-compatible servers for the engine endpoint; empty with benchmark_endpoint_start: "
            "http://127.0.0.1:8000"
        ),
    )
    benchmark_endpoint_api: Literal["auto", "completions", "chat"] = Field(
        "auto", description="auto: completions for prompts of token ids, chat for text"
    )
    benchmark_endpoint_model: str = Field(
        "", description=("the model's name at the server; empty: benchmark_model, which every server has to list then")
    )
    benchmark_endpoint_start: str = Field(
        "", description="command that starts the server on the node, in the foreground; empty: it runs already"
    )
    benchmark_endpoint_health: str = Field(
        "/health", pattern=r"^/\S*$", description="route that answers 200 once the started server is ready"
    )
    benchmark_endpoint_start_timeout_s: int = Field(
        600,
        ge=1,
        description=("seconds until a server's start counts as hung: large weights from a cold disk, then compiling"),
    )
    benchmark_endpoint_query_timeout_s: float = Field(
        300, gt=0, description="seconds after which a query without its whole answer has failed"
    )
    benchmark_endpoint_ca_file: str = Field(
        "",
        description=(
            "certificates (PEM) on the node of the authorities that signed a server's own; empty: the system's"
        ),
    )
    benchmark_timeout_s: int = Field(
        1800,
        ge=1,
        le=7 * 86400,
        description=(
            "seconds until a node counts as hung and its partial samples are fetched: half an hour is"
            " enough for 8B weights from a cold disk and a run of MLPerf's ten minutes"
        ),
    )
    benchmark_sync_start: bool = Field(
        True,
        description=("whether all nodes begin to measure at one agreed time, once every one has loaded and warmed up"),
    )
    benchmark_sync_timeout_s: int = Field(
        900,
        ge=1,
        le=7 * 86400,
        description=(
            "seconds after its start within which a node must be ready to measure, a peak search "
            "included; else it is left behind and the others go on"
        ),
    )
    benchmark_telemetry: bool = Field(
        True,
        description=(
            "whether GPUs (through NVML) and host (through psutil) are watched ten times a second "
            "while the node measures; also gives the energy"
        ),
    )
    benchmark_solo_first: bool = Field(
        False,
        description=(
            "whether each node measures alone first, one after the other: what they lose together is "
            "shared power, cooling or storage"
        ),
    )
    benchmark_repeats: int = Field(
        1,
        ge=1,
        le=20,
        description=(
            "measurements of the profile in one process, after one load, up to 20: their spread shows, and the "
            "median one is the run's result"
        ),
    )
    benchmark_min_nodes: Annotated[int | str, BeforeValidator(_number_or_share)] = Field(
        "100%",
        description=(
            "nodes that must be counted for the run as a whole to count: a number, or a percentage of those asked"
        ),
    )
    benchmark_drift: Literal["warn", "fail", "ignore"] = Field(
        "warn",
        description=(
            "what it means that nodes with the same GPU differ in driver, clocks, packages, ...; fail"
            " stops them before anything is measured"
        ),
    )
    benchmark_fail_on_invalid: bool = Field(True, description="whether an invalid verdict fails the playbook")
    benchmark_results_dir: NonEmpty = Field(
        "results", description="on the controller, relative to the checkout: where runs are kept"
    )
    benchmark_work_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/runs",
        description=(
            "on the node: where a run's files lie until they are fetched; with a shared home, name a local disk"
        ),
    )

    python_env_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/venv", description="the virtual environment on the node"
    )
    python_env_python: NonEmpty = Field(
        "python3", description="the interpreter that it is made from, 3.10 or newer, with its venv module"
    )
    python_env_requirements: NonEmpty = Field(
        "requirements-node.txt", description="on the controller, relative to the checkout: the pinned packages"
    )
    python_env_torch_index_url: str = Field(
        "",
        description=("package index of torch builds for an older driver or for the CPU; empty: the node's usual index"),
    )
    python_env_wheelhouse: str = Field(
        "",
        description=(
            "on the controller, relative to the checkout: a directory of wheels (make wheelhouse), from which alone "
            "the packages then come, for nodes without internet; empty: none"
        ),
    )
    python_env_min_free_gb: float = Field(
        10,
        ge=0,
        description=(
            "free disk in GB that a new environment needs (torch with CUDA is most of it); preflight checks it"
        ),
    )
    python_env_timeout_s: int = Field(1800, ge=1, description="seconds until one installation counts as hung")

    vllm_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/vllm",
        description="vLLM's own virtual environment on the node: it pins its own torch",
    )
    vllm_python: str = Field(
        "",
        description=(
            "the interpreter that it is made from, 3.11 to 3.14 for the version that is locked; "
            "empty: python_env_python"
        ),
    )
    vllm_requirements: NonEmpty = Field(
        VLLM_LOCK,
        description=(
            "on the controller, relative to the checkout: vLLM and all that it needs, locked by version and checksum"
        ),
    )
    vllm_wheelhouse: str = Field(
        "",
        description=(
            "on the controller, relative to the checkout: a directory of wheels (make wheelhouse "
            "REQUIREMENTS=requirements-vllm.txt), from which alone vLLM then comes; empty: none"
        ),
    )
    vllm_min_free_gb: float = Field(
        20,
        ge=0,
        description=(
            "free disk in GB that a new environment of it needs (4.3 GB of wheels, unpacked about "
            "10); preflight checks it"
        ),
    )
    vllm_timeout_s: int = Field(3600, ge=1, description="seconds until one installation of it counts as hung")

    hf_cache_dir: NonEmpty = Field("~/.cache/huggingface", description="the Hugging Face cache (HF_HOME) on the node")
    hf_cache_source: Literal["hub", "controller", "none"] = Field(
        "hub",
        description=(
            "hub: each node downloads; controller: it downloads once and pushes, so that nodes need "
            "no internet; none: what is there is only verified"
        ),
    )
    hf_cache_controller_dir: str = Field(
        "",
        description=(
            "the cache on the controller for hf_cache_source controller; empty: its HF_HOME or ~/.cache/huggingface"
        ),
    )
    hf_cache_dataset: NonEmpty = Field(
        DEFAULT_DATASET,
        description=(
            "hub id of CNN/DailyMail, prepared where the profile asks for it and benchmark_dataset_path is empty"
        ),
    )
    hf_cache_dataset_revision: NonEmpty = Field(
        DEFAULT_DATASET_REVISION, description="commit, tag or branch of the dataset; only a commit is pinned"
    )
    hf_cache_min_free_gb: float = Field(
        20, ge=0, description="disk in GB that the weights need at least; what is there already counts"
    )
    hf_cache_timeout_s: int = Field(
        7200, ge=1, description="seconds until a download counts as hung: two hours are enough for 16 GB at 20 Mbit/s"
    )

    @field_validator("benchmark_model")
    @classmethod
    def _hub_id_or_directory(cls, value: str) -> str:
        if is_directory_path(value) or re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            return value
        raise ValueError("neither a hub id such as 'org/name' nor an absolute directory on the node")

    @field_validator("benchmark_endpoint_urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if problem := _url_problem(url):
                raise ValueError(problem)
        if len({url.rstrip("/") for url in urls}) < len(urls):
            raise ValueError("the same URL is there twice")
        return urls


class ResolvedSettings(BaseModel):
    """What a node is given: its settings with defaults filled in, and the whole profile, so that no file is missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: Settings
    profile: Profile

    def sha256(self) -> str:
        """Return the hex SHA-256 of the canonical JSON form: equal settings, equal hash."""
        return canonical_sha256(self.model_dump(mode="json"))


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or parts.fragment or " " in url:
        return "each has to be a server's address such as http://127.0.0.1:8000"
    # Settings are kept in every result.
    if parts.username is not None:
        return "a password in a URL would be kept; set benchmark_endpoint_api_key or benchmark_endpoint_headers"
    secret = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET_PARAMETER.search(name)]
    if secret:
        return f"{secret[0]} in a URL would be kept; give it as a header, by benchmark_endpoint_headers"
    return None


def is_directory_path(model: str) -> bool:
    """Tell whether `benchmark_model` names a directory on the node rather than a hub id."""
    return model.startswith(("/", "~/", "./", "../"))


def canonical_sha256(value: Any) -> str:
    """Return the hex SHA-256 of `value` as JSON with sorted keys and no white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_settings(variables: dict[str, Any]) -> Settings:
    """Fill in defaults and check types and ranges. Raises InputError with every problem, one sentence a line."""
    try:
        return Settings.model_validate(variables)
    except ValidationError as error:
        raise InputError("\n".join(_sentence(dict(item)) for item in error.errors())) from None


def resolve(variables: dict[str, Any]) -> ResolvedSettings:
    """Fill in defaults, check types and ranges and load the profile.

    Raises InputError with every problem, one sentence a line.
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
        # Here and not above: these need the records, and the records need these settings.
        from benchmark.verdict import accuracy_paths, metric_paths

        for limits, known in ((profile.limits, metric_paths()), (profile.accuracy_limits, accuracy_paths())):
            unknown = [limit.metric for limit in limits if limit.metric not in known]
            problems += [f"Profile {name}: limits name {metric}, which is not a metric." for metric in unknown]
    if settings is not None and profile is not None:
        try:
            profile = _in_effect(profile, settings)
        except ValidationError as error:
            problems += [f"benchmark_engine is {settings.benchmark_engine!r}: {e['msg']}." for e in error.errors()]
    if settings is not None and profile is not None and profile.engine == VLLM:
        problems += vllm_problems(settings, dict(profile.engine_options), profile.prefix_caching)
    if settings is not None and profile is not None:
        from benchmark.combinations import combination_problems

        problems += combination_problems(settings, profile)
    searchable = profile is not None and profile.scenario_options.get("scenario") in ("Server", "Offline")
    if settings is not None and settings.benchmark_target_qps == "auto" and not searchable:
        problems.append(
            f"benchmark_target_qps is auto, and profile {name} has no rate to search for: give a number, or take "
            "mlperf-server, mlperf-interactive or mlperf-offline."
        )
    if settings is not None and profile is not None and settings.benchmark_audit and profile.scenario != "loadgen":
        problems.append(
            f"benchmark_audit is {settings.benchmark_audit}, and LoadGen does not drive profile {name}: take one "
            "of the mlperf- profiles."
        )
    if settings is not None and settings.python_env_wheelhouse and settings.python_env_torch_index_url:
        problems.append(
            "python_env_wheelhouse is set, so no node asks an index: leave python_env_torch_index_url empty, and give "
            "it to make wheelhouse (TORCH_INDEX_URL)."
        )
    if settings is not None and settings.benchmark_solo_first and not settings.benchmark_sync_start:
        problems.append("benchmark_solo_first needs benchmark_sync_start: nodes that do not wait are never alone.")
    if problems or settings is None or profile is None:
        raise InputError("\n".join(problems))
    return ResolvedSettings(settings=settings, profile=profile)


def _in_effect(profile: Profile, settings: Settings) -> Profile:
    """Return the profile with what the settings put in its place: nodes with unlike profiles are not summed."""
    changes: dict[str, Any] = {}
    if settings.benchmark_accuracy != "profile":
        changes["accuracy"] = settings.benchmark_accuracy
    if settings.benchmark_engine not in ("", profile.engine):
        # The profile's options are another engine's.
        changes |= {"engine": settings.benchmark_engine, "engine_options": {}}
    if settings.benchmark_engine_options:
        own = changes.get("engine_options", profile.engine_options)
        changes["engine_options"] = {**own, **settings.benchmark_engine_options}
    return Profile.model_validate({**profile.model_dump(), **changes}) if changes else profile


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


def from_environment() -> dict[str, Any]:
    """Return the settings that environment variables give to a run by hand (SERVER_TARGET_QPS, HF_HOME)."""
    names = {"SERVER_TARGET_QPS": "benchmark_target_qps", "HF_HOME": "hf_cache_dir"}
    return {setting: os.environ[name] for name, setting in names.items() if os.environ.get(name)}


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


def _sentence(error: dict[str, Any]) -> str:
    """Turn one pydantic error into a sentence that names the variable, its value and what would do."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden" and name in SECRETS:
        return f"{name} may be secret and is no part of the settings: it would stand in the process list."
    if error["type"] == "extra_forbidden":
        known = _closest(name)
        return f"{name} is not a setting" + (f": did you mean {known}?" if known else ".")
    value = error["input"]
    shown = "not a finite number" if isinstance(value, float) and not math.isfinite(value) else f"{value!r}"
    shown = re.sub(r"//[^/\s]*@", "//...@", shown)  # a password in a URL is not repeated
    shown = re.sub(r"\?[^'\s]*", "?...", shown) if name.startswith("benchmark_endpoint_urls") else shown
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} is {shown}: {message[0].lower()}{message[1:]}."


def _closest(name: str) -> str | None:
    import difflib

    matches = difflib.get_close_matches(name, [*Settings.model_fields, *SECRETS], n=1)
    return matches[0] if matches else None
