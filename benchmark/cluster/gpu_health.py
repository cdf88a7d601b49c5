"""Whether a node's GPUs are fit to be measured, from what its driver reports.

A GPU fails its node if it is lost, is known to be broken, needs a reset, or would be mistaken for another one. What may
have a harmless reason is a warning: docs/troubleshooting.md says which, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.cluster.gpu_listing import BUS, GpuLine, Listing, is_wrong
from benchmark.cluster.names import some
from benchmark.visible_devices import NAME, Visible, read
from benchmark.words import plural

# nvidia-smi's exit code for a warning about the board's configuration memory, with all GPUs listed.
_WARNED = "14"
LEAVE_OUT = f"leave it out: list the UUIDs of the others (nvidia-smi -L) in {NAME} (benchmark_environment)"
RESET = f"Reset it or restart the node, or {LEAVE_OUT}."
REPLACE = f"A reset does not fix that: it must be replaced. Until then {LEAVE_OUT}."
# Fields that are Yes or No, or counts, and what it means if they are not No or 0.
_RESETTABLE = {
    "remapped_rows.pending": "rows of its memory failed and need a reset to be remapped",
    "retired_pages.pending": "pages of its memory failed and need a reset to be retired",
    "ecc.errors.uncorrected.volatile.total": "uncorrectable ECC errors were counted since its driver was loaded: {}",
}
_LASTING = {
    "remapped_rows.failure": "rows of its memory failed and could not be remapped",
    "ecc.errors.uncorrected.aggregate.sram.thresholdExceeded": (
        "its caches had more uncorrectable ECC errors than NVIDIA allows"
    ),
}
CHECKED = ("compute_mode", "mig.mode.current", *_RESETTABLE, *_LASTING, "gpu_recovery_action")
"""The fields by which a GPU that answers may still fail its node."""


@dataclass(frozen=True)
class Wanted:
    """What a run requires of a node's GPUs.

    `visible`: CUDA_VISIBLE_DEVICES for the run, None: all GPUs; `expected`: how many the node should have, 0: unknown;
    `sick_fails`: whether a GPU that answers but is known to be faulty fails its node.
    """

    visible: str | None = None
    expected: int = 0
    sick_fails: bool = True


@dataclass(frozen=True)
class Judged:
    """How many devices the run may use, and problems and warnings in sentences."""

    usable: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def chosen(listing: Listing, visible: str | None) -> Visible | None:
    """Return how CUDA reads CUDA_VISIBLE_DEVICES on this node; None if it is not set."""
    if visible is None:
        return None
    numbers = [int(gpu.index) + 1 for gpu in listing.gpus if gpu.index.isdecimal()]
    return read(visible, max(numbers, default=0), [gpu.uuid for gpu in listing.gpus if gpu.uuid])


def answers(gpu: GpuLine) -> bool:
    """Return whether nvidia-smi knows the GPU's values, rather than giving an error in their place."""
    return not _error(gpu)


def judge(listing: Listing, status: str, on_pci: Sequence[str], wanted: Wanted) -> Judged:
    """Judge a node's GPUs. `status`: nvidia-smi's exit code; `on_pci`: NVIDIA's GPUs on the PCI bus."""
    said = " ".join(" ".join(listing.rest).split())[:300]
    if not listing.gpus:
        return Judged(0, (_none_listed(said),), ())
    taken = chosen(listing, wanted.visible)
    used = [gpu for gpu in listing.gpus if _is_used(gpu, taken)]
    problems: list[str] = []
    warnings = [f"nvidia-smi: {line}" for line in listing.warnings]
    for gpu in listing.gpus:
        reasons, remedy = _unfit(gpu)
        if reasons and gpu not in used:
            warnings.append(f"{gpu}, which this run does not use, is not fit: {reasons}.")
        elif reasons:
            fails = wanted.sick_fails or not answers(gpu)
            (problems if fails else warnings).append(f"{gpu} is not fit: {reasons}. {remedy}")
    for gpu in filter(answers, used):
        problems += _unusable(gpu, taken)
        warnings += _doubtful(gpu, listing.gpus)
    # A user who selects GPUs leaves out the others; the run itself checks the selected ones against the driver's list.
    of_all = problems if taken is None else warnings
    if said:
        of_all.append(
            f"nvidia-smi lists {plural(len(listing.gpus), 'GPU')} and says: {said}. A lost GPU would not be "
            f"measured: reset it or restart the node, or {LEAVE_OUT}."
        )
    elif status not in ("0", _WARNED) and not problems:
        of_all.append(
            f"nvidia-smi ended with exit code {status} after listing {plural(len(listing.gpus), 'GPU')}: try it on the "
            "node."
        )
    if taken is not None and not (taken.entries and used):
        lacking = "no GPU here is in MIG mode" if taken.slices else "none of the GPUs it names answers"
        problems.append(taken.left_out or f"{NAME} is {wanted.visible!r}, and {lacking}.")
    elif taken is not None and taken.left_out:
        warnings.append(taken.left_out)
    answering = sum(map(answers, listing.gpus))
    if wanted.expected and answering != wanted.expected:
        problems.append(
            f"{answering} {'GPU answers' if answering == 1 else 'GPUs answer'} here, and preflight_gpus says "
            f"{wanted.expected}: look for the others in the kernel's messages (Xid) and restart the node, or set the "
            "number that is right."
        )
    elif not wanted.expected:
        warnings += _only_on_pci(listing, on_pci)
    usable = len(taken.entries) if taken and taken.slices else sum(map(answers, used))
    return Judged(usable, tuple(problems), tuple(warnings))


def _none_listed(said: str) -> str:
    # The words of a shell and of `timeout`.
    missing = any(words in said for words in ("not found", "No such file or directory"))
    why = "there is no nvidia-smi on its PATH" if missing else f"nvidia-smi failed ({said or 'it said nothing'})"
    return (
        f"No GPU is visible: {why}. Install or load the NVIDIA driver, or "
        "restart the node where a GPU is lost; to measure the CPU instead, set benchmark_device: cpu."
    )


def _is_used(gpu: GpuLine, taken: Visible | None) -> bool:
    """Return whether the run would use the GPU. For slices, which are not listed by GPU: any GPU in MIG mode."""
    if taken is None:
        return True
    if taken.slices:
        return gpu.reported.get("mig.mode.current") != "Disabled"
    by_uuid = any(entry.startswith("GPU-") for entry in taken.entries)
    return taken.chooses(gpu.index, gpu.uuid) or (by_uuid and not gpu.uuid)


def _error(gpu: GpuLine) -> str:
    cells = (gpu.name, gpu.memory_mib, gpu.driver, *gpu.reported.values())
    return next((cell for cell in cells if is_wrong(cell)), "")


def _unfit(gpu: GpuLine) -> tuple[str, str]:
    """Return why it is known to be broken or to need a reset, and what to do; empty if it is not."""
    if error := _error(gpu):
        # The other cells are useless then.
        return f"nvidia-smi says {error!r} of it", RESET
    reasons = []
    if action := gpu.reported.get("gpu_recovery_action"):
        reasons.append(f"the driver asks for a recovery action: {action}")
    reasons += [words.format(gpu.reported[name]) for name, words in _RESETTABLE.items() if gpu.says(name)]
    lasting = [words for name, words in _LASTING.items() if gpu.says(name)]
    return "; ".join([*reasons, *lasting]), REPLACE if lasting else RESET


def _unusable(gpu: GpuLine, taken: Visible | None) -> Iterator[str]:
    """Yield modes of the GPU that a run cannot use, or would mistake for something else."""
    if gpu.reported.get("compute_mode") == "Prohibited":
        yield (
            f"{gpu} allows no computing: its compute mode is Prohibited. Set another (nvidia-smi -i {gpu.index} -c "
            f"DEFAULT), or {LEAVE_OUT}."
        )
    if gpu.reported.get("mig.mode.current") == "Enabled" and not (taken and taken.slices):
        yield (
            f"{gpu} is in MIG mode, and {NAME} names no slice: one slice would be measured instead of the GPU. Switch "
            f"MIG off (nvidia-smi -i {gpu.index} -mig 0, and a reset), or name a slice there (MIG-..., by nvidia-smi "
            "-L; benchmark_environment)."
        )


def _doubtful(gpu: GpuLine, all_gpus: Sequence[GpuLine]) -> Iterator[str]:
    """Yield warnings about the GPU, which may have a harmless reason."""
    width, width_max = gpu.number("pcie.link.width.current"), gpu.number("pcie.link.width.max")
    if width and width_max and width < width_max:
        yield (
            f"{gpu} has {width} of {width_max} PCIe lanes: it, its riser or its slot has a bad contact, or the machine "
            "gives it no more. Loading, and transfers through the host, are slower."
        )
    if (low := _lower_generation(gpu, all_gpus)) is not None:
        yield (
            f"{gpu} is linked at PCIe generation {low[0]} of {low[1]}, and the others here, which idle as it does, at "
            f"{low[1]}: look at its slot and the kernel's messages (AER)."
        )
    state = gpu.reported.get("fabric.state", "Completed")
    if state != "Completed":
        yield (
            f"{gpu}: its NVLink fabric is not set up ({state}), and CUDA may not start before: is the service "
            "nvidia-fabricmanager running?"
        )


def _lower_generation(gpu: GpuLine, all_gpus: Sequence[GpuLine]) -> tuple[int, int] | None:
    """Return the link's generation and its highest one, where power saving cannot explain the difference.

    The node is idle, and an idle GPU may lower it. It should not in P0 with the driver kept loaded if at least two
    others of the same model are in the same state and keep the highest.
    """
    alike = [one for one in all_gpus if _awake(one) and one.name == gpu.name and one is not gpu]
    now, best = _generation(gpu)
    if not _awake(gpu) or len(alike) < 2 or now is None or best is None or now >= best:
        return None
    return (now, best) if all(_generation(one) == (best, best) for one in alike) else None


def _awake(gpu: GpuLine) -> bool:
    return gpu.reported.get("pstate") == "P0" and gpu.reported.get("persistence_mode") == "Enabled"


def _generation(gpu: GpuLine) -> tuple[int | None, int | None]:
    return gpu.number("pcie.link.gen.current"), gpu.number("pcie.link.gen.max")


def _only_on_pci(listing: Listing, on_pci: Sequence[str]) -> Iterator[str]:
    """Yield which GPUs only the bus lists. A container may have only some of them."""
    listed = {match[1].lower() for gpu in listing.gpus if (match := BUS.search(gpu.bus))}
    missing = [one for one in on_pci if (match := BUS.search(one)) and match[1].lower() not in listed]
    if listed and missing:
        yield (
            f"The PCI bus has {plural(len(on_pci), 'NVIDIA GPU')} and nvidia-smi lists {len(listing.gpus)}: "
            f"{some(missing)} {'is' if len(missing) == 1 else 'are'} lost, or not this user's (a container, another "
            "driver). If the node should have them all, set preflight_gpus."
        )
