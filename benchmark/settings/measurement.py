"""Settings of what is measured, the target, and the engine."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from benchmark.profiles import plugins, switch_in_yaml
from benchmark.provisioned_engine import NonEmpty
from benchmark.settings.base import SettingsPart, no_switch

DEFAULT_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
# The commit that MLPerf's reference implementation for llama3.1-8b pins.
DEFAULT_REVISION = "be673f326cab4cd22ccfef76109faf68e41aa5f1"

# The newest round of MLPerf Inference that this program knows; the first with llama3.1-8b was 5.1.
DEFAULT_ROUND: Literal["6.1"] = "6.1"


def _rate_or_auto(value: Any) -> Any:
    """Return a number above zero or "auto"; anything else gives one error, where a union gives one per type."""
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
    """Return a number, such as YAML makes of 6.0, as the intended text."""
    return str(value) if type(value) is float else value


def _count_or_auto(value: Any) -> Any:
    number = _rate_or_auto(value)
    if number != "auto" and number != int(number):
        raise ValueError("a whole number greater than 0, or auto, is needed")
    return number if number == "auto" else int(number)


class MeasurementSettings(SettingsPart):
    """What is measured, and its target."""

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
            "commit, tag or branch of a hub model; the default is the commit that MLPerf's reference pins. Only a "
            "commit is fixed, so that a second run needs no network"
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
            "a run on cuda fails without a GPU: it never falls back to the CPU by itself; self-test needs no GPU"
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
            "target of the verdict, in queries per second per GPU (on the CPU: per replica); auto: search for the "
            "highest valid rate"
        ),
    )
    benchmark_accuracy: Annotated[
        Literal["profile", "off", "with-performance", "only"], BeforeValidator(switch_in_yaml)
    ] = Field(
        "profile", description="whether the accuracy of the answers is measured too; profile: as the profile says"
    )
    benchmark_probes: Annotated[Literal["on", "off", "only"], BeforeValidator(switch_in_yaml)] = Field(
        "on",
        description=(
            "small probes of GPUs, CPU, memory, links and disk before an engine loads, half a minute (with the engine "
            "simulated: none); only: nothing else, as with the profile hardware"
        ),
    )
    benchmark_probe_floors: dict[str, Annotated[float, Field(gt=0), BeforeValidator(no_switch)]] = Field(
        {},
        description=(
            "the minimum that a probe must reach on every GPU and between each pair, by the probe's name, such as "
            "device_memory_read: 3500; a node below it is invalid"
        ),
    )
    benchmark_mlperf_round: Annotated[Literal["5.1", "6.0", "6.1"], BeforeValidator(_as_text)] = Field(
        DEFAULT_ROUND,
        description="round of MLPerf Inference whose seeds LoadGen uses; the limits are the same in all three",
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

    @field_validator("benchmark_model")
    @classmethod
    def _hub_id_or_directory(cls, value: str) -> str:
        if is_directory_path(value) or re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            return value
        raise ValueError("neither a hub id such as 'org/name' nor an absolute directory on the node")


def is_directory_path(model: str) -> bool:
    """Return whether `benchmark_model` names a directory on the node rather than a hub id."""
    return model.startswith(("/", "~/", "./", "../"))
