"""The arguments and results of probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple, Protocol

# `gpu`: on each GPU, on all at the same time; `gpus`: between the GPUs of a node; `node`: the node itself.
Scope = Literal["gpu", "gpus", "node"]


class Figure(NamedTuple):
    """A measured number with its unit: GB/s is 10^9 bytes per second, TFLOP/s and TOP/s 10^12 operations per second."""

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
        """The name of the device in torch."""
        return f"cuda:{self.index}"


@dataclass(frozen=True)
class Gpus(Gpu):
    """All GPUs of the node, in the process of one of them. `store`: a file through which these find each other."""

    count: int
    store: Path


@dataclass(frozen=True)
class Host:
    """The node. `directory`: the model's directory, or one on the disk to read."""

    directory: Path
    cores: int


class Probe(Protocol):
    """A module of this package that measures. RATES: which of its figures, not pairs, may have a floor."""

    SCOPE: Scope

    def measure(self, place: Gpu | Gpus | Host) -> Mapping[str, Figure]:
        """Return named figures, without those that the hardware does not support; raises any error."""
