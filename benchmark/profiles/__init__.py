"""Profiles: named, versioned choices of scenario, dataset, limits and generation settings. One YAML file each.

A file in this directory is selected by its name, a user's own by its path.
"""

from __future__ import annotations

import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from benchmark.errors import InputError
from benchmark.faults import did_you_mean, sentences
from benchmark.provisioned import ENGINES

_HERE = Path(__file__).parent
_NODE = _HERE.parent / "node"
# Engines, scenarios and datasets with existing files.
_SEEN: set[tuple[str, str]] = set()

# The scenario, engine and dataset of a profile that only measures the hardware.
NONE = "none"
# An engine that only waits, and says nothing about the hardware.
SIMULATED = "simulated"
MOST_STEPS, MOST_IN_FLIGHT = 20, 4096


def switch_in_yaml(value: Any) -> Any:
    """Return on and off as words, although YAML reads them as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Generation(_Part):
    """How tokens are chosen. `temperature` 0 is greedy."""

    max_new_tokens: int = Field(64, ge=1, description="most tokens of an answer")
    min_new_tokens: int = Field(
        0, ge=0, description="fewest tokens of an answer; if equal to max_new_tokens, all answers have that length"
    )
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token; above 0: sampled")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens with this total probability")
    top_k: int = Field(0, ge=0, description="sample from this many of the likeliest tokens; 0: from all")
    seed: int = Field(0, ge=0, description="query i is sampled with seed + i")

    @model_validator(mode="after")
    def _order(self) -> Generation:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens is above max_new_tokens")
        return self


class Limit(_Part):
    """One check of the verdict: `metric` compared with a fixed limit, or with a share of the target.

    Exactly one of `at_least`, `at_most` and `at_least_of_target` is given.
    """

    metric: str = Field(description="a path into the metrics, such as latency_ms.p99")
    at_least: float | None = Field(None, description="in the metric's unit")
    at_most: float | None = Field(None, description="in the metric's unit")
    at_least_of_target: float | None = Field(
        None, gt=0, description="share of benchmark_target_qps times GPUs; one of these three is given"
    )

    @model_validator(mode="after")
    def _one(self) -> Limit:
        if sum(v is not None for v in (self.at_least, self.at_most, self.at_least_of_target)) != 1:
            raise ValueError("give exactly one of at_least, at_most, at_least_of_target")
        return self


class Sweep(_Part):
    """A ladder of loads, one after another: `concurrency` or `rate`, in ascending order."""

    concurrency: tuple[Annotated[int, Field(ge=1, le=MOST_IN_FLIGHT)], ...] = Field(
        (), max_length=MOST_STEPS, description="queries in flight on each GPU, one step per value"
    )
    rate: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (), max_length=MOST_STEPS, description="or: queries/s, as shares of the rate of a burst, one step per value"
    )
    least_growth: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="the ladder ends at the step whose tokens/s exceed the best before by less than this share",
    )
    limits: tuple[Limit, ...] = Field((), description="the report says where on the ladder each is crossed")
    stop_at_limits: bool = Field(False, description="whether the ladder ends with the step that crosses one of them")

    @model_validator(mode="after")
    def _ladder(self) -> Sweep:
        if bool(self.concurrency) == bool(self.rate):
            raise ValueError("give either concurrency or rate")
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("each step must be above the one before it")
        if any(limit.at_least_of_target is not None for limit in self.limits):
            raise ValueError("limits are fixed figures: give at_least or at_most")
        return self

    @property
    def steps(self) -> tuple[float, ...]:
        """The loads, in the order of measurement."""
        return self.concurrency or self.rate


class Profile(_Part):
    """What is run, and the limits for it."""

    name: str = Field(min_length=1, description="the name in results")
    version: int = Field(ge=1, description="raise it whenever the numbers would change")
    description: str = Field("", description="one line for people")
    scenario: str = Field(description="who issues queries, and when; closed_loop: the next one when the last has ended")
    scenario_options: dict[str, Any] = Field(default_factory=dict, description="options of the scenario: see below")
    engine: str = Field(description="what answers the queries")
    engine_options: dict[str, Any] = Field(default_factory=dict, description="options of the engine: see below")
    # As with prefix_caching below: the hash of a profile without it stays.
    fallback_engine: Literal["", "sequential"] = Field(
        "",
        exclude_if=lambda engine: not engine,
        description="answers if `engine` cannot serve the model on the node; it has no options",
    )
    dataset: str = Field(description="the prompts")
    dataset_options: dict[str, Any] = Field(default_factory=dict, description="options of the dataset: see below")
    min_prompts: int = Field(1, ge=1, description="a smaller dataset makes the verdict invalid")
    samples: int | None = Field(None, ge=1, description="number of measured queries; absent: the scenario decides")
    warmup: int = Field(2, ge=0, description="number of queries before measuring, not counted")
    generation: Generation = Field(Generation(), description="how tokens are chosen: see below")
    limits: tuple[Limit, ...] = Field((), description="checks of the verdict, in order")
    accuracy: Annotated[Literal["off", "with-performance", "only"], BeforeValidator(switch_in_yaml)] = Field(
        "off", description="whether the answers are judged too; benchmark_accuracy overrides it"
    )
    accuracy_limits: tuple[Limit, ...] = Field((), description="checks of the answers, if accuracy is measured")
    # A profile without it is what it was before there was this choice: its hash stays.
    prefix_caching: bool = Field(
        False, exclude_if=lambda wanted: not wanted, description="whether a server may reuse cached prefixes"
    )
    sweep: Sweep | None = Field(
        None,
        exclude_if=lambda ladder: ladder is None,
        description="measure under one load after the other, and report the curve: see below",
    )
    greedy_prompts: int = Field(
        0, ge=0, description="number of first prompts for which like nodes must give the same greedy tokens"
    )
    kind: Literal["health-check", "benchmark", "self-test", "hardware"] = Field(
        "benchmark", description="its name in the summary; the figures of a self-test say nothing about hardware"
    )

    without_model_or_gpu: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description=(
            "a node needs neither: no model is provided and no GPU is checked, whatever the settings say; for the "
            "engine simulated"
        ),
    )

    @property
    def needs_model(self) -> bool:
        """Whether a node needs the model."""
        return self.loads_model and not self.without_model_or_gpu

    @property
    def loads_model(self) -> bool:
        """Whether a model answers a dataset's prompts; otherwise only the hardware is probed."""
        return self.engine != NONE

    @property
    def measures_queries(self) -> bool:
        """Whether queries are issued and measured: without them nodes have no common window."""
        return self.loads_model and self.accuracy != "only"

    @property
    def scheduled(self) -> bool:
        """Whether a schedule sets the queries per second, rather than the system's speed."""
        return self.scenario == "schedule" or self.scenario_options.get("scenario") == "Server"

    @property
    def replays(self) -> bool:
        """Whether that schedule is a trace's own, whatever the target."""
        return self.scenario == "schedule" and self.scenario_options.get("arrivals") == "trace"

    @field_validator("scenario", "engine", "dataset")
    @classmethod
    def _known(cls, value: str, info: Any) -> str:
        if value == NONE:
            return value
        kind = info.field_name + "s"
        # Looked up by name, once: a large run has a profile for each node, and there may be hundreds of runs to read.
        if (kind, value) not in _SEEN and not (kind == "engines" and value in ENGINES):
            there = value.isidentifier() and not value.startswith("_") and (_NODE / kind / f"{value}.py").is_file()
            if there:
                _SEEN.add((kind, value))
                return value
            known = plugins(kind)
            meant = did_you_mean(value, known)
            raise ValueError(f"there is no such {info.field_name}{meant} {kind.capitalize()}: {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _all_or_none(self) -> Profile:
        if len({part == NONE for part in (self.scenario, self.engine, self.dataset)}) > 1:
            raise ValueError(f"scenario, engine and dataset are {NONE} together, where the hardware alone is probed")
        return self


def plugins(kind: str) -> list[str]:
    """Return the names of the `engines`, `scenarios` or `datasets`, without importing any: one file each."""
    names = [m.name for m in pkgutil.iter_modules([str(_NODE / kind)]) if not m.name.startswith("_")]
    return sorted([*names, *ENGINES] if kind == "engines" else names)


def profile_names() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Return the profile with that name or path. Raises InputError, one sentence per line."""
    path = _HERE / f"{name}.yaml"
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
    elif not path.is_file():
        raise InputError(
            f"benchmark_profile is {name!r}, which is not a profile{did_you_mean(name, profile_names())} Profiles: "
            f"{', '.join(profile_names())}. For a file of your own give its path."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"benchmark_profile: cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"benchmark_profile: {path} is not YAML: {' '.join(str(error).split())}.") from error
    return _parse(text, path)


@lru_cache(maxsize=8)
def _parse(text: str, path: Path) -> Profile:
    """Return the profile in a file; cached, since the nodes of a play mostly have the same."""
    # Imported here: a node gets its profile in its order, and does not need YAML.
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"benchmark_profile: {path} is not YAML: {' '.join(str(error).split())}.") from error
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(sentences(error, Profile, before=f"{path}: "))) from error
