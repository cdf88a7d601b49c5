"""The driver's facts about a GPU that can affect the figures, and the other processes on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

from benchmark.node.watch.nvml import Driver, as_text
from benchmark.records import Gpu, GpuProcess
from benchmark.records.environment import throttle_reasons

# No GPU that is fit for a measurement has more processes.
MAX_PROCESSES = 20


def describe(asked: Driver, gpu: Gpu) -> Gpu:
    """Return torch's facts about a GPU together with the driver's."""
    slice_ = asked.handle(gpu.uuid)
    if slice_ is None:
        return gpu
    board, nvml = asked.board(slice_), asked.nvml
    mode = asked.ask("nvmlDeviceGetEccMode", board)
    return Gpu.model_validate(
        {
            **dict(gpu),
            "number": asked.ask("nvmlDeviceGetIndex", board),
            "vbios": as_text(asked.ask("nvmlDeviceGetVbiosVersion", board)) or "",
            "power_limit_w": _thousandth(asked.ask("nvmlDeviceGetEnforcedPowerLimit", board)),
            "power_limit_default_w": _thousandth(asked.ask("nvmlDeviceGetPowerManagementDefaultLimit", board)),
            "sm_clock_max_mhz": asked.ask("nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_SM),
            "sm_clock_set_mhz": asked.ask("nvmlDeviceGetApplicationsClock", board, nvml.NVML_CLOCK_SM),
            "memory_clock_max_mhz": asked.ask("nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_MEM),
            "throttle_reasons": throttle_reasons(asked.throttle_mask(board) or 0),
            "ecc": None if mode is None else bool(mode[0]),
            "ecc_corrected": asked.ecc_errors(board, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "ecc_uncorrected": asked.ecc_errors(board, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            "mig": _first(asked.ask("nvmlDeviceGetMigMode", board)),
            "persistence": _yes(asked.ask("nvmlDeviceGetPersistenceMode", board)),
            "pcie_generation": asked.ask("nvmlDeviceGetCurrPcieLinkGeneration", board),
            "pcie_generation_max": asked.ask("nvmlDeviceGetMaxPcieLinkGeneration", board),
            "pcie_width": asked.ask("nvmlDeviceGetCurrPcieLinkWidth", board),
            "pcie_width_max": asked.ask("nvmlDeviceGetMaxPcieLinkWidth", board),
        }
    )


def processes(asked: Driver) -> dict[str, tuple[GpuProcess, ...]]:
    """Return the other processes on each GPU of the machine, by UUID, including MIG slices.

    Call it before this process uses a GPU; in a container the driver may show no processes.
    """
    found = {}
    for handle in asked.handles():
        uuid = as_text(asked.ask("nvmlDeviceGetUUID", handle))
        if uuid:
            found[uuid] = tuple(islice(_processes_on(asked, handle), MAX_PROCESSES))
    return found


def _processes_on(asked: Driver, handle: Any) -> Iterator[GpuProcess]:
    seen = {os.getpid()}
    questions = (
        ("compute", "nvmlDeviceGetComputeRunningProcesses"),
        ("graphics", "nvmlDeviceGetGraphicsRunningProcesses"),
    )
    for kind, question in questions:
        for process in asked.ask(question, handle) or ():
            if process.pid in seen:
                continue
            seen.add(process.pid)
            yield GpuProcess(**asked.describe_process(process), kind="compute" if kind == "compute" else "graphics")


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _first(pair: Any) -> bool | None:
    return None if pair is None else bool(pair[0])


def _yes(value: Any) -> bool | None:
    return None if value is None else bool(value)
