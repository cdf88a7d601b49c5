"""What small probes measured of a node's hardware before an engine loaded."""

from __future__ import annotations

from pydantic import Field

from benchmark.records.base import Count, Name, Record, Text


class Measured(Record):
    """A number with its unit: GB/s is 10^9 bytes a second, TFLOP/s and TOP/s 10^12 operations a second."""

    value: float
    unit: Name


class GpuProbes(Record):
    """What was measured on one GPU, while all others of the node were measured too."""

    index: Count
    name: Name = ""
    uuid: Text = ""
    figures: dict[Name, Measured] = Field(default_factory=dict, description="by name; what the GPU cannot do is absent")


class HardwareProbes(Record):
    """Of one node. What was not measured is absent, and `notes` says why."""

    node: dict[Name, Measured] = Field(default_factory=dict, description="CPU, memory and disk")
    gpus: tuple[GpuProbes, ...] = ()
    between_gpus: dict[Name, Measured] = Field(default_factory=dict, description="each pair, and all together")
    notes: tuple[Text, ...] = Field((), description="what could not be measured, and why, a sentence each")
    seconds: float = Field(description="how long all of it took")
