"""The results of small probes of a node's hardware, before an engine loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from benchmark.records.base import Count, Record, Text

# The number of results of the sustained matrix product that differ from the first one.
WRONG = "wrong_products"

# Far beyond any hardware, and small enough that sums and ratios are finite.
MOST = 1e15
FigureName = Annotated[str, Field(min_length=1, max_length=100)]


class Measured(Record):
    """A number with its unit: GB/s is 10^9 bytes per second, TFLOP/s and TOP/s 10^12 operations per second."""

    value: float = Field(ge=-MOST, le=MOST)
    unit: Annotated[str, Field(min_length=1, max_length=40)]

    @property
    def better(self) -> Literal["higher", "lower"] | None:
        """Which direction is better, by the unit; None: it only explains other figures (a clock, a temperature)."""
        if self.unit.endswith("/s"):
            return "higher"
        return "lower" if self.unit == "us" else None


class GpuProbes(Record):
    """Measurements of one GPU, made while all others of the node were measured too."""

    index: Count
    name: Text = ""
    uuid: Text = ""
    figures: dict[FigureName, Measured] = Field(
        default_factory=dict, description="by name; without those that the GPU does not support"
    )


class HardwareProbes(Record):
    """The probes of one node. What was not measured is absent, and `notes` says why."""

    node: dict[FigureName, Measured] = Field(default_factory=dict, description="CPU, memory and disk")
    gpus: tuple[GpuProbes, ...] = ()
    between_gpus: dict[FigureName, Measured] = Field(
        default_factory=dict, description="of each pair, and of all together"
    )
    notes: tuple[Text, ...] = Field((), description="what could not be measured, and why, a sentence each")
    seconds: float = Field(description="duration of all probes")

    def places(self) -> Iterator[tuple[str, dict[str, Measured]]]:
        """Yield each place in words, and the figures measured there."""
        yield "", self.node
        for gpu in self.gpus:
            yield f"GPU {gpu.index}", gpu.figures
        yield "", self.between_gpus
