"""What small probes measured of a node's hardware before an engine loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text

# The figure that counts results of the sustained matrix product which differ from the first one.
WRONG = "wrong_products"


class Measured(Record):
    """A number with its unit: GB/s is 10^9 bytes a second, TFLOP/s and TOP/s 10^12 operations a second."""

    value: float
    unit: Name

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """Which way is better, by the unit; None: it says something of the others (a clock, a temperature)."""
        if self.unit.endswith("/s"):
            return "higher"
        return "lower" if self.unit == "us" else None


class GpuProbes(Record):
    """What was measured on one GPU, while all others of the node were measured too."""

    index: Count
    name: Text = ""
    uuid: Text = ""
    figures: dict[Name, Measured] = Field(default_factory=dict, description="by name; what the GPU cannot do is absent")


class HardwareProbes(Record):
    """Of one node. What was not measured is absent, and `notes` says why."""

    node: dict[Name, Measured] = Field(default_factory=dict, description="CPU, memory and disk")
    gpus: tuple[GpuProbes, ...] = ()
    between_gpus: dict[Name, Measured] = Field(default_factory=dict, description="each pair, and all together")
    notes: tuple[Text, ...] = Field((), description="what could not be measured, and why, a sentence each")
    seconds: float = Field(description="how long all of it took")

    def places(self) -> Iterator[tuple[str, dict[str, Measured]]]:
        """Yield in words where figures were measured, and the figures."""
        yield "", self.node
        for gpu in self.gpus:
            yield f"GPU {gpu.index}", gpu.figures
        yield "", self.between_gpus
