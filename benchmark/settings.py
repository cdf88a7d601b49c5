"""The settings a user edits, under the very names that they have in the inventory.

One definition serves the inventory (checked on the controller before any host is touched), the node and the
result files. The roles' defaults, specs and tables and docs/settings.md are made from it: `make generate`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from fractions import Fraction
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from benchmark.errors import InputError
from benchmark.faults import sentence
from benchmark.profiles import Profile, plugins, switch_in_yaml
from benchmark.provisioned import EngineSettings
from benchmark.variables import SECRETS, VARIABLES

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
    "benchmark_prometheus_dir",
    "benchmark_fail_on_invalid",
    "benchmark_sync_start",
    "benchmark_sync_timeout_s",
    "benchmark_solo_first",
    "benchmark_repeats",
    "benchmark_min_nodes",
    "benchmark_drift",
    "benchmark_mlperf_round",
    "benchmark_audit",
    "benchmark_currency",
    "benchmark_system",
    "benchmark_driver",
)
# And these where all nodes are one system, which answers one schedule.
SYSTEM_WIDE = (
    "benchmark_profile",
    "benchmark_model",
    "benchmark_model_revision",
    "benchmark_dtype",
    "benchmark_target_qps",
    "benchmark_accuracy",
    "benchmark_timeout_s",
    "benchmark_endpoint_api",
    "benchmark_endpoint_model",
    "benchmark_endpoint_query_timeout_s",
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


class Settings(EngineSettings):
    """Every setting of one node. Paths are the node's unless the description says otherwise.

    Those of the engines that are provisioned come from their declarations in `benchmark/provisioned/`.
    """

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
            "a file of your own on the node: cnn_eval.json, or what the dataset trace replays; empty: what hf_cache "
            "prepared, where the profile asks for it"
        ),
    )
    benchmark_dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="the weights' precision")
    benchmark_device: Literal["cuda", "cpu"] = Field(
        "cuda",
        description=(
            "without a GPU a run on cuda fails: it never falls back to the CPU by itself; self-test needs none"
        ),
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
            "queries per second per GPU (on the CPU: per replica) that the verdict is held against; auto: the highest "
            "valid rate is searched for"
        ),
    )
    benchmark_accuracy: Annotated[
        Literal["profile", "off", "with-performance", "only"], BeforeValidator(switch_in_yaml)
    ] = Field("profile", description="whether the answers are judged too; profile: as it says")
    benchmark_probes: Annotated[Literal["on", "off", "only"], BeforeValidator(switch_in_yaml)] = Field(
        "on",
        description=(
            "small probes of GPUs, CPU, memory, links and disk before an engine loads, half a minute (with the engine "
            "simulated: none); only: nothing else, as with the profile hardware"
        ),
    )
    benchmark_probe_floors: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description=(
            "the least that a probe must reach on every GPU and between each pair, by the probe's name, such as "
            "device_memory_read: 3500; a node below it is invalid"
        ),
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
        description=f"one of {', '.join(plugins('engines'))} in the profile's place; empty: the profile's",
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
    benchmark_system: Literal["node", "cluster"] = Field(
        "node",
        description=(
            "what is measured: node: each node by itself, all at the same time; cluster: all nodes as one system, "
            "which serve and are asked by one LoadGen"
        ),
    )
    benchmark_driver: str = Field(
        "",
        description=(
            "where that LoadGen runs if benchmark_system is cluster: a node's name; empty: the controller, which then "
            "needs requirements-driver.txt"
        ),
    )
    benchmark_serve_address: str = Field(
        "",
        description=(
            "the node's own address or name, at which its server listens for the driver if benchmark_system is "
            "cluster, or the others of its benchmark_group reach it; empty: ansible_host"
        ),
    )
    benchmark_serve_port: int = Field(
        8000,
        ge=1,
        le=65535,
        description=(
            "the port that the server listens on if benchmark_system is cluster; in a benchmark_group: at which its "
            "nodes meet"
        ),
    )
    benchmark_group: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][\w.-]{0,63})?$",
        description=(
            "nodes of the same name here serve one copy of the model together, which is larger than a node; the first "
            "in the inventory is measured; empty: the node by itself"
        ),
    )
    benchmark_busy: Literal["wait", "fail"] = Field(
        "wait",
        description=(
            "what is done where another run measures on the node's machine, whoever's it is: wait for its end, up to "
            "benchmark_sync_timeout_s, or fail the node; for provisioning too"
        ),
    )
    benchmark_shared_machine: bool = Field(
        False,
        description=(
            "whether nodes and runs for which that is set too share the machine without waiting for each other: for "
            "trying things out, as what is measured is no figure of the machine"
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
            "included; else it is stopped and the others go on"
        ),
    )
    benchmark_telemetry: bool = Field(
        True,
        description=(
            "whether GPUs (through NVML) and host (through psutil) are watched ten times a second "
            "while the node measures; also gives the energy"
        ),
    )
    benchmark_cost_per_gpu_hour: float = Field(
        0,
        ge=0,
        description=(
            "price of one GPU for an hour, in benchmark_currency, per group or host; gives the cost of a million "
            "tokens; 0: not known, and no cost is shown"
        ),
    )
    benchmark_currency: str = Field(
        "USD", pattern=r"^[^\W\d_]{1,8}$|^[$€£¥₩₹]$", description="what prices are in, as a word or sign: only printed"
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
            "measurements of the profile, up to 20, with the model loaded once: their spread shows, and the "
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
    benchmark_prometheus_dir: str = Field(
        "",
        description=(
            "on the controller, relative to the checkout: the directory of the node exporter's textfile "
            "collector, into which llm_benchmark.prom is written after every run; empty: none"
        ),
    )
    benchmark_work_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/runs",
        description=(
            "on the node: where a run's files lie until they are fetched; a local disk where the home directory is "
            "shared"
        ),
    )

    preflight_gpus: int = Field(
        0,
        ge=0,
        description=(
            "GPUs that the node is to have, chosen for the run or not: fewer or more fail it; 0: as many as it lists"
        ),
    )
    preflight_sick_gpus: Literal["fail", "warn"] = Field(
        "fail",
        description=(
            "what it means that a GPU which answers is known to be broken or needs a reset (memory errors, a recovery "
            "action): fail keeps its node from measuring"
        ),
    )

    python_env_manage: bool = Field(
        True,
        description=(
            "whether the role makes the environment; false: python_env_dir is one that exists (conda, a module, a "
            "container's), which is checked and never changed"
        ),
    )
    python_env_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/venv",
        description=(
            "the virtual environment on the node; those of other packages lie beside it (venv-<hash>). With "
            "python_env_manage false: the one that exists, with bin/python3 in it"
        ),
    )
    python_env_code_dir: NonEmpty = Field(
        "~/.local/share/llm-benchmark/code",
        description="on the node: where the benchmark's own code goes if python_env_manage is false",
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

    @property
    def code_dir(self) -> str:
        """Where the benchmark's own code lies on the node: what `find_environment` is asked for."""
        return self.python_env_dir if self.python_env_manage else self.python_env_code_dir

    @field_validator("benchmark_model")
    @classmethod
    def _hub_id_or_directory(cls, value: str) -> str:
        if is_directory_path(value) or re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            return value
        raise ValueError("neither a hub id such as 'org/name' nor an absolute directory on the node")

    @field_validator("benchmark_serve_address")
    @classmethod
    def _serve_address(cls, value: str) -> str:
        if re.fullmatch(r"[\w.:-]*", value):
            return value
        raise ValueError(
            "neither a name nor an address, and IPv6 stands here without brackets and without an interface"
        )

    @field_validator("python_env_torch_index_url")
    @classmethod
    def _index(cls, url: str) -> str:
        # Kept in every result, and a word of pip's command line on the node.
        if urlsplit(url).password is not None:
            raise ValueError("a password in a URL would be kept and shown: pip takes it from ~/.netrc on the node")
        return url

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

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    settings: Settings
    profile: Profile

    @property
    def measurements(self) -> int:
        """How many measurements there are at most with the model loaded once: the repeats, or the steps of a sweep."""
        return len(self.profile.sweep.steps) if self.profile.sweep else self.settings.benchmark_repeats

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
    """Return whether `benchmark_model` names a directory on the node rather than a hub id."""
    return model.startswith(("/", "~/", "./", "../"))


def canonical_sha256(value: Any) -> str:
    """Return the hex SHA-256 of `value` as JSON with sorted keys and no white space."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_settings(variables: dict[str, Any]) -> Settings:
    """Fill in defaults and check types and ranges. Raises InputError with every problem, one sentence a line."""
    try:
        return Settings.model_validate(variables)
    except ValidationError as error:
        raise InputError("\n".join(map(_sentence, error.errors()))) from None


def _sentence(fault: ErrorDetails) -> str:
    name = str(next(iter(fault["loc"]), ""))
    if name in SECRETS:  # whose value is not repeated
        return f"{name} may be secret and is not a setting: it would show in the process list."
    names = [variable.name for variable in VARIABLES]
    return sentence(fault, Settings, noun="a setting", listed=False, more=names)
