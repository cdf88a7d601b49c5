"""Datasheet figures of GPUs, shown beside what a probe measured. No GPU reaches all of them, and none has to.

Keys are the names that NVML and torch use. Figures are dense, never "with sparsity"; figures that could not be
confirmed, or that differ between a maker's own documents, are left out. Looked up in 2026-11 on public pages that quote
NVIDIA's datasheet of each product, for GeForce RTX its architecture whitepapers.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from benchmark.cluster.report.amounts import amount
from benchmark.probed import words_of
from benchmark.records import HardwareProbes
from benchmark.records.probes import Measured


class Datasheet(NamedTuple):
    """One GPU: GB/s of its memory, TFLOP/s (int8: TOP/s) of dense matrix products. None: not supported, or unknown.

    Products of 16 bits are summed in 32 bits, as torch does.
    """

    memory_gb_s: float
    float16: float | None = None
    bfloat16: float | None = None
    float8: float | None = None
    int8: float | None = None


def _of_16_bits(memory_gb_s: float, rate: float, float8: float | None = None, int8: float | None = None) -> Datasheet:
    return Datasheet(memory_gb_s, rate, rate, float8, int8)


_A100 = {"rate": 312, "int8": 624}
_HOPPER_SXM = {"rate": 989.5, "float8": 1979, "int8": 1979}

DATASHEETS: Mapping[str, Datasheet] = {
    # Volta and Turing have no bfloat16; the V100's tensor cores support float16 only.
    "Tesla V100-PCIE-16GB": Datasheet(900, float16=112),
    "Tesla V100-PCIE-32GB": Datasheet(900, float16=112),
    "Tesla V100-SXM2-16GB": Datasheet(900, float16=125),
    "Tesla V100-SXM2-32GB": Datasheet(900, float16=125),
    "Tesla V100S-PCIE-32GB": Datasheet(1134, float16=130),
    "Tesla T4": Datasheet(320, float16=65, int8=130),
    "NVIDIA A10": _of_16_bits(600, 125, int8=250),
    "NVIDIA A30": _of_16_bits(933, 165, int8=330),
    "NVIDIA A40": _of_16_bits(696, 149.7, int8=299.3),
    "NVIDIA A100-PCIE-40GB": _of_16_bits(1555, **_A100),
    "NVIDIA A100-SXM4-40GB": _of_16_bits(1555, **_A100),
    "NVIDIA A100 80GB PCIe": _of_16_bits(1935, **_A100),
    "NVIDIA A100-SXM4-80GB": _of_16_bits(2039, **_A100),
    "NVIDIA RTX A6000": Datasheet(768),
    "NVIDIA L4": _of_16_bits(300, 121, 242.5, 242.5),
    "NVIDIA L40": _of_16_bits(864, 181.05, 362, 362),
    "NVIDIA L40S": _of_16_bits(864, 362.05, 733, 733),
    "NVIDIA RTX 6000 Ada Generation": Datasheet(960),
    # With sums in 32 bits a GeForce reaches half its rate with sums in 16.
    "NVIDIA GeForce RTX 4090": _of_16_bits(1008, 165.2, 330.3, 660.6),
    "NVIDIA GeForce RTX 5090": Datasheet(1792),
    "NVIDIA H100 PCIe": _of_16_bits(2000, 756.5, 1513, 1513),
    "NVIDIA H100 80GB HBM3": _of_16_bits(3350, **_HOPPER_SXM),
    # Documents differ in the rates of both NVL boards.
    "NVIDIA H100 NVL": Datasheet(3900),
    "NVIDIA H200": _of_16_bits(4800, **_HOPPER_SXM),
    "NVIDIA H200 NVL": Datasheet(4800),
    "NVIDIA GH200 480GB": Datasheet(4000),
    "NVIDIA B200": _of_16_bits(7700, 2250, 4500, 4500),
}


# Probe figure -> field here. The sustained product has none: a datasheet's rate is at the boost clock.
_FIGURES = {
    "device_memory_read": "memory_gb_s",
    "matrix_float16": "float16",
    "matrix_bfloat16": "bfloat16",
    "matrix_float8": "float8",
    "matrix_int8": "int8",
}


def datasheet_value(gpu: str, figure: str) -> float | None:
    """Return a GPU's datasheet figure, in the unit of the probe's figure; None if unknown."""
    field, known = _FIGURES.get(figure), DATASHEETS.get(gpu)
    value: float | None = getattr(known, field) if known is not None and field is not None else None
    return value


def datasheet_words(probed: Iterable[HardwareProbes]) -> str:
    """Return the median GPU's measurements beside its datasheet, a line for each known GPU model."""
    measured: dict[str, dict[str, list[Measured]]] = {}
    for probes in probed:
        for gpu in probes.gpus:
            for name, figure in gpu.figures.items():
                if datasheet_value(gpu.name, name) is not None:
                    measured.setdefault(gpu.name, {}).setdefault(name, []).append(figure)
    lines = []
    for gpu_name, figures in measured.items():
        words = []
        for name, each in figures.items():
            stated, value = datasheet_value(gpu_name, name), statistics.median(figure.value for figure in each)
            if stated:
                words.append(
                    f"{words_of(name)} {amount(value)} of {amount(stated)} {each[0].unit} ({value / stated:.0%})"
                )
        lines.append(f"{gpu_name}: {', '.join(words)}")
    return "\n".join(lines)
