"""What a node is: as far as it can change a number."""

from __future__ import annotations

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text


class GpuProcess(Record):
    """A process that is not ours and holds memory on a GPU."""

    pid: Count
    name: Text = Field("", description="empty: another user's, whose name may not be read")
    user: Text = ""
    memory_mib: Count | None = None


class Gpu(Record):
    """One GPU that the run could see."""

    index: Count
    name: Name
    memory_mib: Count
    uuid: Text = ""
    vbios: Text = ""
    power_limit_w: float | None = Field(None, description="in effect")
    power_limit_default_w: float | None = Field(None, description="what the board is made for")
    sm_clock_max_mhz: Count | None = None
    memory_clock_max_mhz: Count | None = None
    throttle_reasons: tuple[Name, ...] = Field((), description="why the clocks are held down, before the run")
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
    cuda: Text | None = None
    kernel: Text = ""
    cpu_governor: Text = Field("", description="how the CPU's clock is chosen; empty: the machine does not tell")
    nvml: Text | None = Field(None, description="why the driver could not be asked; absent: it was, or no GPU is used")
    model_sha256: Text = Field("", description="of the weights' files; empty: the engine has none of its own")
    tokenizer_sha256: Text = ""
    packages: dict[Name, Text] = Field(default_factory=dict, description="installed versions")
