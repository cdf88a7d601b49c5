"""systems/SYSTEM.json: the 35 fields of MLCommons' description of a system, from a run and a user's answers."""

from __future__ import annotations

from benchmark import DISCLAIMER
from benchmark.cluster.submission.parts import Part
from benchmark.cluster.submission.rules import Division
from benchmark.cluster.submission.system_file import SystemFile
from benchmark.provisioned import ENGINES
from benchmark.records import Environment, NodeResult

NONE = "N/A"
# Packages that make up the framework, by engine; all other packages are the other software.
TRANSFORMERS = ("transformers", "torch")
FRAMEWORKS = {
    "continuous": TRANSFORMERS,
    "sequential": TRANSFORMERS,
    **{name: (engine.package, "torch") for name, engine in ENGINES.items()},
}


def system_description(
    part: Part, answers: SystemFile, division: Division, submitter: str, system_type: str
) -> dict[str, str | int]:
    """Return the fields. `system_type` is "datacenter", "edge" or "datacenter,edge"."""
    seen = part.environment
    gpu = seen.gpus[0] if seen.gpus else None
    framework, other = software(part.result, part.environment)
    notes = [answers.sw_notes, _what_answered(part), f"{DISCLAIMER}."]
    fields: dict[str, str | int] = {
        "division": division,
        "submitter": submitter,
        "status": answers.status,
        "system_name": answers.system_name,
        "system_type": system_type,
        "system_type_detail": answers.system_type_detail or NONE,
        # Each node is its own system: LoadGen runs on it, and its result is the node's.
        "number_of_nodes": 1,
        "host_processor_model_name": seen.cpu,
        "host_processors_per_node": answers.host_processors_per_node,
        "host_processor_core_count": answers.host_processor_core_count,
        "host_memory_capacity": gib(seen.memory_mib),
        "accelerators_per_node": len(seen.gpus) or "0",  # the number 0 would count as no answer
        "accelerator_model_name": gpu.name if gpu else NONE,
        "accelerator_memory_capacity": gib(gpu.memory_mib) if gpu else NONE,
        "accelerator_frequency": f"{gpu.sm_clock_max_mhz} MHz" if gpu and gpu.sm_clock_max_mhz else "",
        "accelerator_host_interconnect": answers.accelerator_host_interconnect or host_interconnect(seen) or NONE,
        "accelerator_interconnect": answers.accelerator_interconnect or NONE,
        "accelerator_interconnect_topology": answers.accelerator_interconnect_topology,
        "accelerator_memory_configuration": answers.accelerator_memory_configuration or NONE,
        "accelerator_on-chip_memories": answers.accelerator_on_chip_memories,
        "framework": framework,
        "operating_system": answers.operating_system or seen.platform,
        "other_software_stack": other,
        "hw_notes": answers.hw_notes,
        "sw_notes": " ".join(note for note in notes if note),
    }
    asked = (
        "host_storage_capacity",
        "host_storage_type",
        "host_processor_frequency",
        "host_processor_caches",
        "host_memory_configuration",
        "host_processor_interconnect",
        "host_networking",
        "host_networking_topology",
        "host_network_card_count",
        "cooling",
    )
    return fields | {name: getattr(answers, name) for name in asked}


def host_interconnect(seen: Environment) -> str:
    """Return how the GPUs are connected to the host, "PCIe Gen4 x16"; empty if the driver did not report it."""
    gpu = seen.gpus[0] if seen.gpus else None
    if gpu is None or not gpu.pcie_generation_max or not (gpu.pcie_width or gpu.pcie_width_max):
        return ""
    return f"PCIe Gen{gpu.pcie_generation_max} x{gpu.pcie_width or gpu.pcie_width_max}"


def gib(mib: int) -> str:
    """Return a memory size in words."""
    return f"{round(mib / 1024)} GiB"


def software(result: NodeResult, seen: Environment) -> tuple[str, str]:
    """Return the framework and the other software, each with versions."""
    engine = result.resolved.profile.engine
    packages = seen.server_packages or seen.packages
    chosen = [name for name in FRAMEWORKS.get(engine, ()) if name in packages]
    framework = ", ".join(f"{name} {packages[name]}" for name in chosen)
    if engine == "endpoint":
        framework = "an OpenAI-compatible server"
    rest = [f"{name} {version}" for name, version in sorted(packages.items()) if name not in chosen]
    machine = [
        f"NVIDIA driver {seen.driver}" if seen.driver else "",
        f"CUDA {seen.cuda}" if seen.cuda else "",
        f"Python {seen.python}",
        f"Linux {seen.kernel}" if seen.kernel else "",
        f"LoadGen {result.loadgen.version}" if result.loadgen else "",
    ]
    return framework or f"the {engine} engine", ", ".join([*(one for one in machine if one), *rest])


def _what_answered(part: Part) -> str:
    engine = part.result.engine
    return "SIMULATED: no model was run." if engine is not None and engine.simulated else ""
