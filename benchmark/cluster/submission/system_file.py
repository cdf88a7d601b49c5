"""system.yml: facts of a submission about a system that no program can detect. Written as a template to fill in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from benchmark.errors import InputError
from benchmark.faults import did_you_mean, sentences
from benchmark.files import read_text, write_atomic

MAX_BYTES = 2**20


def _text(value: Any) -> Any:
    """Return a number as text: 1 is a valid answer to how many."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Answer = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=4000, pattern=r"\S")]
Optional = Annotated[str, BeforeValidator(lambda value: "" if value is None else _text(value)), Field(max_length=4000)]


class SystemFile(BaseModel):
    """A user's answers, with the field names of MLCommons' system description."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system_name: Answer = Field(description="the system's name, such as the server's product name")
    status: Literal["available", "preview", "rdi"] = Field(
        description="available: it can be bought or rented; preview: it soon can; rdi: research, development, internal"
    )
    host_processors_per_node: int = Field(ge=1, description="sockets (lscpu: Socket(s))")
    host_processor_core_count: int = Field(ge=1, description="cores of one processor (lscpu: Core(s) per socket)")
    host_memory_configuration: Answer = Field(description="the memory modules, such as 16x 32GB DDR4-3200")
    host_storage_type: Answer = Field(description="such as NVMe SSD")
    host_storage_capacity: Answer = Field(description="such as 2 TB")
    host_networking: Answer = Field(description="the network's kind and speed, such as Ethernet 25GbE; N/A for none")
    host_networking_topology: Answer = Field(description="how hosts are connected, such as a switch; N/A for one host")
    host_network_card_count: Answer = Field(description="network cards, such as 1x 25GbE")
    cooling: Answer = Field(description="air, liquid, passive, ...")
    accelerator_memory_configuration: Optional = Field("", description="kind of a GPU's memory, such as HBM2")
    accelerator_interconnect: Optional = Field("", description="between GPUs, such as NVLink or PCIe; N/A for one GPU")
    accelerator_host_interconnect: Optional = Field(
        "", description="between GPU and host, such as PCIe Gen4 x16; empty: as detected by the run"
    )
    accelerator_interconnect_topology: Optional = ""
    accelerator_on_chip_memories: Optional = Field("", alias="accelerator_on-chip_memories")
    host_processor_frequency: Optional = ""
    host_processor_caches: Optional = ""
    host_processor_interconnect: Optional = ""
    operating_system: Optional = Field("", description="such as Ubuntu 24.04; empty: as detected by the run")
    system_type_detail: Optional = ""
    hw_notes: Optional = Field("", description="further notes on the hardware")
    sw_notes: Optional = Field("", description="further notes on the software")
    filesystem: Optional = Field("", description="file system of the models, such as ext4; only for export")
    availability_url: Optional = Field("", description="where an available system is offered; only for export")
    target_availability_date: Optional = Field("", description="of a preview, such as 2027-01-31; only for export")
    endpoints_division: Annotated[
        Literal["", "Standardized", "Serviced", "RDI"], BeforeValidator(lambda value: "" if value is None else value)
    ] = Field("", description="Standardized, Serviced or RDI; only for export")
    system_id: Optional = Field(
        "", description="the name of the system's directory and file; empty: made from system_name"
    )

    @property
    def directory(self) -> str:
        """A name for files: letters, digits, dot, underscore and hyphen."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.system_id or self.system_name).strip("._-") or "system"


# Not required without a GPU.
OF_GPUS = ("accelerator_memory_configuration", "accelerator_interconnect")


def read_system(path: Path, gpus: int, host_interconnect: bool) -> SystemFile:
    """Return the answers. `host_interconnect`: whether the runs detected how GPUs are connected to the host.

    Raises InputError with a sentence for each answer that is missing, unknown or invalid.
    """
    try:
        content = yaml.safe_load(read_text(path.resolve(), MAX_BYTES))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} has no answers: each is a line such as cooling: air.")
    names = [field.alias or name for name, field in SystemFile.model_fields.items()]
    problems = []
    for name in content:
        if name not in names:
            problems.append(f"{path}: {name} is not a known field{did_you_mean(str(name), names)}")
    needed = [name for name, field in SystemFile.model_fields.items() if field.is_required()]
    if gpus:
        needed += [*OF_GPUS, *(() if host_interconnect else ("accelerator_host_interconnect",))]
    for name in needed:
        if content.get(name) is None or not str(content[name]).strip():
            problems.append(f"{path}: {name} has no answer: {SystemFile.model_fields[name].description}.")
    known = {name: value for name, value in content.items() if name in names}
    if not problems:
        try:
            return SystemFile.model_validate(known)
        except ValidationError as error:
            problems += sentences(error, SystemFile, before=f"{path}: ")
    raise InputError("\n".join(problems))


def write_template(path: Path) -> None:
    """Write the template, with an explanation of each field. Raises InputError if it cannot be written."""
    lines = [
        "# Facts about the system that no program can detect. Answer each line; N/A is a valid answer.",
        "# GPUs, memory, processor and software are taken from the runs.",
    ]
    optional = False
    for name, field in SystemFile.model_fields.items():
        if not field.is_required() and not optional:
            optional = True
            lines += ["", "# Optional, except the first two for a system with GPUs."]
        lines += ["", *([f"# {field.description}"] if field.description else []), f"{field.alias or name}:"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}.") from error
