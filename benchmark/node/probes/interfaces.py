"""What a probe is given, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple, Protocol

# `gpu`: measured on each GPU, on all at the same time; `gpus`: between the GPUs of a node; `node`: of the node itself.
Scope = Literal["gpu", "gpus", "node"]


class Figure(NamedTuple):
    """A measured number with its unit: GB/s is 10^9 bytes a second, TFLOP/s and TOP/s 10^12 operations a second."""

    value: float
    unit: str


@dataclass(frozen=True)
class Gpu:
    """One GPU, as torch sees it in the process that measures it."""

    torch: ModuleType
    index: int
    uuid: str

    @property
    def device(self) -> str:
        """The name that torch knows it by."""
        return f"cuda:{self.index}"


@dataclass(frozen=True)
class Gpus(Gpu):
    """All GPUs of the node, as the process of one of them sees them. `store`: a file by which these find each other."""

    count: int
    store: Path


@dataclass(frozen=True)
class Host:
    """The node. `directory`: where the model lies, or what it would be read from."""

    directory: Path
    cores: int


class Probe(Protocol):
    """A module of this package that measures. RATES: which of its figures may have a floor, without pairs."""

    SCOPE: Scope

    def measure(self, place: Gpu | Gpus | Host) -> Mapping[str, Figure]:
        """Return named figures. What the hardware cannot do has none; raises whatever goes wrong."""
