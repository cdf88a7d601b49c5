"""Machines that the inventory lists twice: their figures would be counted twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from benchmark.cluster.gpu_health import chosen
from benchmark.cluster.names import natural
from benchmark.cluster.preflight import Probe


@dataclass(frozen=True)
class Machine:
    """A machine's identity, whatever its name and address."""

    host: str
    boot_id: str
    """The kernel's boot id: containers of one machine share it."""
    cpus: frozenset[int]
    """The CPUs that the node may use."""
    gpus: frozenset[str]
    """UUIDs of the GPUs, or of their MIG slices, that its run would use; empty: none, or unknown."""
    shared: bool
    """Whether it is meant to be listed more than once."""

    @classmethod
    def of(cls, probe: Probe, device: str, visible: str | None, shared: bool) -> Machine:
        """Return the machine in a probe's report. `visible`: CUDA_VISIBLE_DEVICES for the run; None: all GPUs."""
        seen = probe.values
        uuids: set[str] = set()
        if device == "cuda":
            listing = probe.listing
            taken = chosen(listing, seen.get("visible_devices") if visible is None else visible)
            uuids = {gpu.uuid for gpu in listing.gpus if gpu.uuid and (not taken or taken.chooses(gpu.index, gpu.uuid))}
            uuids |= {entry for entry in taken.entries if entry.startswith("MIG-")} if taken else set()
        return cls(seen.get("host", ""), seen.get("boot_id", ""), _cpus(seen.get("cpus", "")), frozenset(uuids), shared)

    def is_also(self, other: Machine) -> bool:
        """Return whether both would measure the same hardware: GPUs in common or, without GPUs, CPUs.

        Two containers with their own GPUs, or their own CPUs, are two nodes even on one machine.
        """
        if self.gpus and other.gpus:
            return bool(self.gpus & other.gpus)
        return bool(self.boot_id) and self.boot_id == other.boot_id and bool(self.cpus & other.cpus)


def listed_twice(machines: Mapping[str, Machine]) -> dict[str, str]:
    """Return a sentence for each entry that is the same machine as another one."""
    found: dict[str, str] = {}
    for one, other in combinations(sorted(machines, key=natural), 2):
        a, b = machines[one], machines[other]
        if a.is_also(b) and not (a.shared and b.shared):
            what = "have a GPU in common" if a.gpus & b.gpus else "are one machine"
            sentence = (
                f"{one} and {other} of the inventory {what} ({a.host or 'its name is not known'}): its work would "
                "be counted twice. List it once; or, for trying things out, set benchmark_shared_machine: true."
            )
            for name in (one, other):
                found.setdefault(name, sentence)
    return found


def _cpus(text: str) -> frozenset[int]:
    """Return the numbers in a list such as 0-3,8."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and len(first) < 6 and (not last or (last.isdigit() and len(last) < 6)):
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)
