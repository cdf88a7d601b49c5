"""What nvidia-smi lists of a node's GPUs, and what is wrong with them: nothing that it prints is passed over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.cluster.names import some

# A cell in which the driver says what is wrong in the place of a value; others only say that there is none for us.
_ABSENT = r"\[?(N/A|None|Not (Supported|Available|Found)|Insufficient Permissions|.*deprecated.*|)\]?"
_WRONG = re.compile(rf"(?!{_ABSENT}$)\[.*\]|ERR!|Unknown Error", re.IGNORECASE)
_NO_ACTION = re.compile(_ABSENT, re.IGNORECASE)
_VERSION = re.compile(r"\d+(\.\d+)+")
_BUS = re.compile(r"(?:[0-9a-f]{4,8}:)?([0-9a-f]{2}:[0-9a-f]{2})(?:\.[0-9a-f])?$", re.IGNORECASE)
# Of nvidia-smi: a warning about the board's configuration memory, with all GPUs listed.
_WARNED = "14"
# What the dynamic linker and the shell say of their own affairs.
_OF_OTHERS = re.compile(r"\bld\.so:|setlocale|cannot set locale|cannot change locale", re.IGNORECASE)


@dataclass(frozen=True)
class GpuLine:
    """One GPU as nvidia-smi lists it."""

    index: str
    bus: str
    name: str
    memory_mib: str
    driver: str
    recovery: str = ""
    uuid: str = ""

    @property
    def wrong(self) -> str:
        """Why it cannot be measured, in words; empty where nothing speaks against it."""
        if wrong := next((cell for cell in vars(self).values() if _WRONG.match(cell)), ""):
            return f"nvidia-smi says {wrong!r} of it"
        return "" if _NO_ACTION.fullmatch(self.recovery) else f"the driver asks for a recovery action: {self.recovery}"


@dataclass(frozen=True)
class Listing:
    """What nvidia-smi printed: the GPUs, warnings, and lines that are neither."""

    gpus: tuple[GpuLine, ...]
    warnings: tuple[str, ...]
    rest: tuple[str, ...]

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Listing:
        """Read index, bus, name, memory, driver, UUID and (newer drivers) recovery action, with commas between them."""
        gpus, warnings, rest = [], [], []
        for line in filter(None, map(str.strip, lines)):
            cells = [cell.strip() for cell in line.split(",")]
            uuid = cells.pop(5) if len(cells) == 7 or (len(cells) == 6 and cells[5].startswith("GPU-")) else ""
            if len(cells) in (5, 6) and (cells[0].isdigit() or _WRONG.match(cells[0])) and _BUS.search(cells[1]):
                index, bus, name, memory_mib, driver, recovery = (*cells, "")[:6]
                gpus.append(GpuLine(index, bus, name, memory_mib, driver, recovery, uuid))
            elif len(cells) == 3 and _VERSION.fullmatch(cells[2]):
                # A wrapper that always asks for these three.
                gpus.append(GpuLine(str(len(gpus)), "", *cells))
            elif line.upper().startswith("WARNING") or _OF_OTHERS.search(line):
                warnings.append(line)
            else:
                rest.append(line)
        return cls(tuple(gpus), tuple(warnings), tuple(rest))


def gpu_problems(lines: Sequence[str], status: str) -> list[str]:
    """Return why the node's GPUs are not fit, a sentence each; `status` is nvidia-smi's exit code."""
    listing = Listing.parse(lines)
    said = " ".join(" ".join(listing.rest).split())[:300]
    if not listing.gpus:
        return [
            f"No GPU is visible: nvidia-smi failed ({said or 'it said nothing'}). Install or load the NVIDIA driver; "
            "to measure the CPU instead, set benchmark_device: cpu."
        ]
    found = [
        f"GPU {gpu.index} ({gpu.bus}) is not fit: {gpu.wrong}. Reset it or restart the node, or leave it out with "
        "CUDA_VISIBLE_DEVICES in benchmark_environment."
        for gpu in listing.gpus
        if gpu.wrong
    ]
    if said:
        found.append(
            f"nvidia-smi lists {len(listing.gpus)} GPUs and says: {said}. A GPU that is lost would go unmeasured: "
            "reset it or restart the node, or choose GPUs with CUDA_VISIBLE_DEVICES in benchmark_environment."
        )
    elif status not in ("0", _WARNED) and not found:
        found.append(
            f"nvidia-smi ended with exit code {status} after listing {len(listing.gpus)} GPUs: try it on the node."
        )
    return found


def gpu_warnings(lines: Sequence[str], on_pci: Sequence[str]) -> list[str]:
    """Return what is to be known of the GPUs though it keeps nobody from measuring, a sentence each.

    `on_pci`: the NVIDIA GPUs that the PCI bus lists. A container may have been given only some of them.
    """
    listing = Listing.parse(lines)
    found = [f"nvidia-smi: {line}" for line in listing.warnings]
    listed = {match[1].lower() for gpu in listing.gpus if (match := _BUS.search(gpu.bus))}
    missing = [one for one in on_pci if (match := _BUS.search(one)) and match[1].lower() not in listed]
    if listed and missing:
        found.append(
            f"The PCI bus has {len(on_pci)} NVIDIA GPUs and nvidia-smi lists {len(listing.gpus)}: {some(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} lost, or not this user's (a container, another driver)."
        )
    return found
