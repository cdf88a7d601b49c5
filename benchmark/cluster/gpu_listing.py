"""Parse nvidia-smi's list of a node's GPUs: every cell by its field's name, without ignoring any line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Fields that nvidia-smi has always known; roles/preflight/files/probe.sh has those that a newer driver is also asked.
FIELDS = ("index", "pci.bus_id", "name", "memory.total", "driver_version", "uuid", "gpu_recovery_action")
BUS = re.compile(r"(?:[0-9a-f]{4,8}:)?([0-9a-f]{2}:[0-9a-f]{2})(?:\.[0-9a-f])?$", re.IGNORECASE)
# A cell without a value, and a cell with an error in place of the value.
_ABSENT = re.compile(
    r"\[?(N/A|None|Not (Supported|Available|Found)|Insufficient Permissions|.*deprecated.*|)\]?", re.IGNORECASE
)
_WRONG = re.compile(r"\[.*\]|ERR!|Unknown Error", re.IGNORECASE)
_VERSION = re.compile(r"\d+(\.\d+)+")
# Warnings of the dynamic linker and the shell, which are not nvidia-smi's.
_OF_OTHERS = re.compile(r"\bld\.so:|setlocale|cannot set locale|cannot change locale", re.IGNORECASE)


def is_absent(cell: str) -> bool:
    """Return whether a cell has no value, which is neither good nor bad."""
    return _ABSENT.fullmatch(cell) is not None


def is_wrong(cell: str) -> bool:
    """Return whether a cell reports an error of the GPU."""
    return _WRONG.match(cell) is not None and not is_absent(cell)


@dataclass(frozen=True)
class GpuLine:
    """One GPU as nvidia-smi lists it. `reported`: the cells with a value, by the names of their fields."""

    index: str
    name: str
    memory_mib: str
    driver: str
    bus: str = ""
    uuid: str = ""
    reported: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"GPU {self.index}" + (f" ({self.bus})" if self.bus else "")

    def number(self, name: str) -> int | None:
        """Return a field's whole number; None if the driver reports none."""
        cell = self.reported.get(name, "")
        return int(cell) if cell.isdecimal() else None

    def says(self, name: str) -> bool | None:
        """Return a field's count, or its Yes or No as 1 or 0; None if the driver does not report it."""
        cell = self.reported.get(name)
        return None if cell is None else cell.casefold() not in ("no", "0")


@dataclass(frozen=True)
class Listing:
    """What nvidia-smi printed: the GPUs, warnings, and lines that are neither."""

    gpus: tuple[GpuLine, ...]
    warnings: tuple[str, ...]
    rest: tuple[str, ...]

    @classmethod
    def parse(cls, lines: Sequence[str], fields: Sequence[str] = FIELDS, rows: Sequence[str] = ()) -> Listing:
        """Read the cells of `fields`, separated by commas; in a shorter line the last ones are absent.

        `rows`: UUID, pending and failure of remapped rows, for drivers that list these separately.
        """
        gpus: list[GpuLine] = []
        warnings: list[str] = []
        rest: list[str] = []
        remapped = _remapped(rows)
        for line in filter(None, map(str.strip, lines)):
            cells = [cell.strip() for cell in line.split(",")]
            if len(cells) == 3 and _VERSION.fullmatch(cells[2]):
                # A wrapper that always asks for these three.
                gpus.append(GpuLine(str(len(gpus)), cells[0], cells[1], cells[2]))
            elif (gpu := _gpu(cells, fields, remapped)) is not None:
                gpus.append(gpu)
            elif line.upper().startswith("WARNING") or _OF_OTHERS.search(line):
                warnings.append(line)
            else:
                rest.append(line)
        return cls(tuple(gpus), tuple(warnings), tuple(rest))


def _gpu(cells: Sequence[str], fields: Sequence[str], remapped: Mapping[str, Mapping[str, str]]) -> GpuLine | None:
    if not 5 <= len(cells) <= len(fields):
        return None
    reported = dict(zip(fields, cells, strict=False))
    # A Jetson's GPU is not on a PCI bus.
    index, bus = reported.get("index", ""), reported.get("pci.bus_id", "")
    if not (index.isdecimal() or is_wrong(index)) or not (BUS.search(bus) or is_absent(bus) or is_wrong(bus)):
        return None
    uuid = reported.get("uuid", "")
    reported |= remapped.get(uuid, {})
    return GpuLine(
        index=index,
        name=reported.get("name", ""),
        memory_mib=reported.get("memory.total", ""),
        driver=reported.get("driver_version", ""),
        bus="" if is_absent(bus) else bus,
        uuid=uuid if uuid.startswith("GPU-") else "",
        reported={name: cell for name, cell in reported.items() if not is_absent(cell)},
    )


def _remapped(rows: Sequence[str]) -> dict[str, dict[str, str]]:
    split = [[cell.strip() for cell in row.split(",")] for row in rows]
    return {
        cells[0]: {"remapped_rows.pending": cells[1], "remapped_rows.failure": cells[2]}
        for cells in split
        if len(cells) == 3 and cells[0].startswith("GPU-")
    }
