"""Facts that differ between nodes that should be alike: with the same GPU model or, without a GPU, the same CPU.

FACTS and QUANTITIES are the whole list; docs/metrics.md explains it. What fluctuates anyway does not count: idle
clocks, temperatures, the PCIe link of an idle GPU, error counters, a few MiB of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.cluster.names import natural, some
from benchmark.code import SHORT, code_words
from benchmark.provisioned import ENGINES
from benchmark.records import Drift, Environment, Gpu, ReadyNode
from benchmark.records.environment import PACKAGES
from benchmark.settings import Settings
from benchmark.settings.measurement import is_directory_path

MAX_TEXT = 4000
# Packages in the environments of provisioned engines.
SERVER_PACKAGES = sorted({name for engine in ENGINES.values() for name in engine.packages})
# Throttle reasons that no healthy idle GPU has.
HELD_DOWN = ("hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")


@dataclass(frozen=True)
class NodeFacts:
    """What is known of one node: its own report, its order, and its clock as the controller saw it."""

    environment: Environment
    settings: Settings
    clock: ReadyNode | None = None
    server_version: str | None = None
    """What a measured server reports about itself; None if there is no server or it reports nothing."""


def hardware(settings: Settings, seen: Environment) -> str:
    """Return the hardware that a node computes on: nodes with the same hardware are compared."""
    if settings.benchmark_device == "cpu":
        return f"CPU {seen.cpu}"[:MAX_TEXT]
    return ", ".join(sorted({gpu.name for gpu in seen.gpus}))[:MAX_TEXT] or "no GPU"


def _each(value: Callable[[Gpu], object]) -> Callable[[NodeFacts], str | None]:
    """Return the distinct values of a node's GPUs in words; None if no GPU reports one."""

    def words(node: NodeFacts) -> str | None:
        reported = {value(gpu) for gpu in node.environment.gpus}
        return ", ".join(sorted(_words(one) for one in reported if one not in (None, ""))) or None

    return words


def _words(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _package(name: str) -> Callable[[NodeFacts], str | None]:
    return lambda node: node.environment.packages.get(name, "not installed")


def _server_package(name: str) -> Callable[[NodeFacts], str | None]:
    def version(node: NodeFacts) -> str | None:
        packages = node.environment.server_packages
        return packages.get(name, "not installed") if packages else None

    return version


def _model(node: NodeFacts) -> str:
    """Return the model's name in the settings: hashes of models that are meant to differ are no drift."""
    settings = node.settings
    directory = is_directory_path(settings.benchmark_model)
    return f"{settings.benchmark_model}@{'' if directory else settings.benchmark_model_revision}"


def _held_down(gpu: Gpu) -> str:
    return " ".join(reason for reason in gpu.throttle_reasons if reason in HELD_DOWN) or "no"


def _others(gpu: Gpu) -> int:
    return sum(process.kind == "compute" for process in gpu.processes)


FACTS: dict[str, Callable[[NodeFacts], str | None]] = {
    "gpu.count": lambda node: str(len(node.environment.gpus)),
    "gpu.vbios": _each(lambda gpu: gpu.vbios),
    "gpu.sm_clock_max_mhz": _each(lambda gpu: gpu.sm_clock_max_mhz),
    "gpu.sm_clock_set_mhz": _each(lambda gpu: gpu.sm_clock_set_mhz),
    "gpu.memory_clock_max_mhz": _each(lambda gpu: gpu.memory_clock_max_mhz),
    "gpu.held_down": _each(_held_down),
    "gpu.ecc": _each(lambda gpu: gpu.ecc),
    "gpu.mig": _each(lambda gpu: gpu.mig),
    "gpu.persistence": _each(lambda gpu: gpu.persistence),
    "gpu.pcie_generation_max": _each(lambda gpu: gpu.pcie_generation_max),
    "gpu.pcie_width_max": _each(lambda gpu: gpu.pcie_width_max),
    "gpu.other_processes": _each(_others),
    "driver": lambda node: node.environment.driver,
    "cuda": lambda node: node.environment.cuda,
    "nvml": lambda node: "answers" if node.environment.nvml is None else "does not answer",
    "cpu": lambda node: node.environment.cpu or None,
    "cpu_count": lambda node: str(node.environment.cpu_count),
    "cpu_governor": lambda node: node.environment.cpu_governor or None,
    "compiler": lambda node: node.environment.compiler or None,
    "kernel": lambda node: node.environment.kernel or None,
    "python": lambda node: node.environment.python,
    "model_sha256": lambda node: node.environment.model_sha256[:SHORT] or None,
    "tokenizer_sha256": lambda node: node.environment.tokenizer_sha256[:SHORT] or None,
    "server_version": lambda node: node.server_version,
    "code": lambda node: code_words(node.environment.code) or None,
    **{f"packages.{name}": _package(name) for name in PACKAGES},
    **{f"server_packages.{name}": _server_package(name) for name in SERVER_PACKAGES},
}
"""Facts that must be equal; None: the node does not report it, and is not compared."""

AMONG: dict[str, Callable[[NodeFacts], str]] = {"model_sha256": _model, "tokenizer_sha256": _model}
"""Facts that are compared only between nodes that have one more thing in common."""


@dataclass(frozen=True)
class Quantity:
    """A number of a node, or of each GPU, that may fluctuate: only a gap wider than both tolerances is a difference."""

    numbers: Callable[[NodeFacts], Sequence[float | None]]
    share: float = 0.0
    absolute: float = 0.0
    digits: int = 0


QUANTITIES: dict[str, Quantity] = {
    "gpu.memory_mib": Quantity(lambda node: [gpu.memory_mib for gpu in node.environment.gpus], share=0.01),
    "gpu.power_limit_w": Quantity(
        lambda node: [gpu.power_limit_w for gpu in node.environment.gpus], absolute=1, digits=1
    ),
    "memory_mib": Quantity(lambda node: [node.environment.memory_mib], share=0.02),
    # The start time is corrected for the offset; a clock this far off misdates logs and breaks certificate checks.
    "clock_offset_s": Quantity(lambda node: [node.clock.offset_ns / 1e9 if node.clock else None], absolute=1, digits=1),
}


def find_drift(nodes: Mapping[str, NodeFacts]) -> tuple[Drift, ...]:
    """Return every fact in which nodes with the same hardware differ, by hardware, in the order of the lists above."""
    alike: dict[str, dict[str, NodeFacts]] = {}
    for name in sorted(nodes, key=natural):
        alike.setdefault(hardware(nodes[name].settings, nodes[name].environment), {})[name] = nodes[name]
    return tuple(
        Drift(hardware=kind, fact=fact, values=_by_frequency(values))
        for kind in sorted(alike)
        for fact, values in _values(alike[kind])
        if len(set(values.values())) > 1
    )


def _values(nodes: Mapping[str, NodeFacts]) -> Iterable[tuple[str, dict[str, str]]]:
    """Yield each fact with its value on every node that reports it."""
    for fact, value in FACTS.items():
        among: dict[str, dict[str, str]] = {}
        for name, node in nodes.items():
            if (reported := value(node)) is not None:
                among.setdefault(AMONG[fact](node) if fact in AMONG else "", {})[name] = reported[:MAX_TEXT]
        yield from ((fact, values) for values in among.values())
    for fact, quantity in QUANTITIES.items():
        yield fact, _in_words(quantity, nodes)


def _in_words(quantity: Quantity, nodes: Mapping[str, NodeFacts]) -> dict[str, str]:
    reported = {name: {n for n in quantity.numbers(node) if n is not None} for name, node in nodes.items()}
    words = _clusters(sorted(set().union(*reported.values())), quantity)
    values = {name: ", ".join(sorted({words[n] for n in numbers})) for name, numbers in reported.items() if numbers}
    return {name: value[:MAX_TEXT] for name, value in values.items()}


def _clusters(numbers: Sequence[float], quantity: Quantity) -> dict[float, str]:
    """Return, for each number, the words for its cluster: "65536", or "65530 to 65536"."""
    clusters: list[list[float]] = []
    for number in numbers:
        near = clusters and number - clusters[-1][-1] <= max(quantity.absolute, quantity.share * abs(number))
        if near:
            clusters[-1].append(number)
        else:
            clusters.append([number])
    words: dict[float, str] = {}
    for cluster in clusters:
        ends = dict.fromkeys(f"{end:.{quantity.digits}f}" for end in (cluster[0], cluster[-1]))
        words |= dict.fromkeys(cluster, " to ".join(ends))
    return words


def _by_frequency(values: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    nodes: dict[str, list[str]] = {}
    for name in sorted(values, key=natural):
        nodes.setdefault(values[name], []).append(name)
    return {value: tuple(nodes[value]) for value in sorted(nodes, key=lambda value: (-len(nodes[value]), value))}


def drift_words(one: Drift, most: int = 3) -> str:
    """Return the fact and its values with their nodes, most frequent first, as part of a sentence."""
    reported = [f"{value[:100]} ({some(names)})" for value, names in list(one.values.items())[:most]]
    more = [f"and {len(one.values) - most} more values"] if len(one.values) > most else []
    return f"{one.fact}: {', '.join([*reported, *more])}"


def drift_reason(found: Sequence[Drift], most: int = 5) -> str:
    """Return a sentence on what nodes with the same hardware differ in."""
    reported = [drift_words(one) for one in found[:most]]
    more = [f"and {len(found) - most} more facts"] if len(found) > most else []
    kinds = some(list(dict.fromkeys(one.hardware[:100] for one in found)), 2)
    return f"Nodes with the same hardware ({kinds}) differ in {'; '.join([*reported, *more])}."[:MAX_TEXT]
