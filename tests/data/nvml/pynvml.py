"""In the place of NVIDIA's library in tests: the values that it gave on one real GPU.

Recorded on an NVIDIA H100 80GB HBM3 with driver 580.159.04 and nvidia-ml-py 13.610.43, idle and while it multiplied
matrices; the machines of the tests have no GPU. What a test changes is written in that test. Values and their types
(a mode as a pair, power in mW, one process with its bytes) are as the library returns them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_CLOCK_SM = 1
NVML_CLOCK_MEM = 2
NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
NVML_VOLATILE_ECC = 0
NVML_FI_DEV_MEMORY_TEMP = 82
nvmlEventTypeXidCriticalError = 8  # noqa: N816 # the library's own name


class NVMLError(Exception):
    """What the library raises."""


class NVMLError_NotSupported(NVMLError):  # noqa: N801 # the library's own name
    """This GPU does not tell."""


@dataclass
class Process:
    """One process on a GPU."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 # the library's own name


@dataclass
class Board:
    """A GPU as the driver tells of it; a question whose answer is None is not supported."""

    uuid: str = "GPU-54485266-68ca-b091-258b-7f599bbb073d"
    answers: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    compute: list[Process] = field(default_factory=list)
    graphics: list[Process] = field(default_factory=list)


IDLE: dict[tuple[Any, ...], Any] = {
    ("nvmlDeviceGetName",): "NVIDIA H100 80GB HBM3",
    ("nvmlDeviceGetVbiosVersion",): "96.00.DA.00.0C",
    ("nvmlDeviceGetEnforcedPowerLimit",): 700000,
    ("nvmlDeviceGetPowerManagementDefaultLimit",): 700000,
    ("nvmlDeviceGetMaxClockInfo", NVML_CLOCK_SM): 1980,
    ("nvmlDeviceGetMaxClockInfo", NVML_CLOCK_MEM): 2619,
    ("nvmlDeviceGetApplicationsClock", NVML_CLOCK_SM): 1980,
    ("nvmlDeviceGetClockInfo", NVML_CLOCK_SM): 405,
    ("nvmlDeviceGetClockInfo", NVML_CLOCK_MEM): 2619,
    ("nvmlDeviceGetCurrentClocksEventReasons",): 1,
    ("nvmlDeviceGetEccMode",): [1, 1],
    ("nvmlDeviceGetTotalEccErrors", NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_VOLATILE_ECC): 0,
    ("nvmlDeviceGetTotalEccErrors", NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC): 0,
    ("nvmlDeviceGetMigMode",): [0, 0],
    ("nvmlDeviceGetPersistenceMode",): 1,
    ("nvmlDeviceGetCurrPcieLinkGeneration",): 5,
    ("nvmlDeviceGetMaxPcieLinkGeneration",): 5,
    ("nvmlDeviceGetCurrPcieLinkWidth",): 16,
    ("nvmlDeviceGetMaxPcieLinkWidth",): 16,
    ("nvmlDeviceGetMaxMigDeviceCount",): 7,
}
BOARDS: list[Board] = [Board()]
PROGRAMS: dict[int, str] = {}
INIT_ERROR = ""


def nvmlInit() -> None:  # noqa: N802
    """Open, or refuse as without a driver."""
    if INIT_ERROR:
        raise NVMLError(INIT_ERROR)


def nvmlShutdown() -> None:  # noqa: N802
    """Close."""


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    """As recorded."""
    return "580.159.04"


def nvmlSystemGetCudaDriverVersion_v2() -> int:  # noqa: N802
    """As recorded."""
    return 13000


def nvmlSystemGetProcessName(pid: int) -> str:  # noqa: N802
    """Return a program that a test named."""
    if pid not in PROGRAMS:
        raise NVMLError("Not Found")
    return PROGRAMS[pid]


def nvmlDeviceGetCount() -> int:  # noqa: N802
    """Return how many GPUs the machine has, visible or not."""
    return len(BOARDS)


def nvmlDeviceGetHandleByIndex(index: int) -> Board:  # noqa: N802
    """Return a GPU by the driver's own order."""
    return BOARDS[index]


def nvmlDeviceGetHandleByUUID(uuid: str) -> Board:  # noqa: N802
    """Return a GPU by its name."""
    for board in BOARDS:
        if board.uuid == uuid:
            return board
    raise NVMLError("Not Found")


def nvmlDeviceGetIndex(board: Board) -> int:  # noqa: N802
    """Return its number in the driver's own order."""
    if board not in BOARDS:
        raise NVMLError("Not Found")
    return BOARDS.index(board)


def nvmlDeviceGetUUID(board: Board) -> str:  # noqa: N802
    """Return its name."""
    return board.uuid


def nvmlDeviceGetComputeRunningProcesses(board: Board) -> list[Process]:  # noqa: N802
    """Return who computes on it, and the processes whose numbers a file holds that a test names."""
    come = Path(os.environ.get("RECORDED_VISITORS", os.devnull))
    pids = come.read_text(encoding="ascii").split() if come.exists() else []
    return [*board.compute, *(Process(int(pid), 16 * 2**30) for pid in pids)]


def nvmlDeviceGetGraphicsRunningProcesses(board: Board) -> list[Process]:  # noqa: N802
    """Return who draws on it."""
    return board.graphics


def _refuse(question: str) -> Any:
    def function(*words: Any) -> Any:
        raise NVMLError_NotSupported("Not Supported")

    return function


def _answer(question: str) -> Any:
    def function(board: Board, *words: Any) -> Any:
        value = board.answers.get((question, *words), IDLE.get((question, *words)))
        if value is None:
            raise NVMLError_NotSupported("Not Supported")
        return value

    return function


BUSY: dict[tuple[Any, ...], Any] = {
    ("nvmlDeviceGetUtilizationRates",): SimpleNamespace(gpu=98, memory=30),
    ("nvmlDeviceGetMemoryInfo",): SimpleNamespace(total=85520809984, free=84091797504, used=1429012480),
    ("nvmlDeviceGetClockInfo", NVML_CLOCK_SM): 1455,
    ("nvmlDeviceGetClockInfo", NVML_CLOCK_MEM): 2619,
    ("nvmlDeviceGetPowerUsage",): 690483,
    ("nvmlDeviceGetTemperature", 0): 54,
    ("nvmlDeviceGetCurrentClocksEventReasons",): 4,
}
# Watts by which the counter below rises; a test gives another figure to each end of a run.
WATTS = float(os.environ.get("RECORDED_WATTS", "690.0"))
XID = [int(number) for number in os.environ.get("RECORDED_XID", "").split()]


def nvmlDeviceGetTotalEnergyConsumption(board: Board) -> int:  # noqa: N802
    """Return a counter that rises with the machine's own clock, in millijoules."""
    if board.answers.get(("no counter",)):
        raise NVMLError_NotSupported("Not Supported")
    return int(time.monotonic() * 1000 * WATTS)


def nvmlDeviceGetPcieThroughput(board: Board, counter: int) -> int:  # noqa: N802
    """Return KiB/s after as long as the driver watches the link."""
    time.sleep(0.0207)
    return (1160, 2836)[counter]


def nvmlDeviceGetFieldValues(board: Board, fields: tuple[int, ...]) -> list[Any]:  # noqa: N802
    """Return the temperature of the memory."""
    return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=45)) for _ in fields]


def nvmlEventSetCreate() -> object:  # noqa: N802
    """Return a set of events."""
    return object()


def nvmlDeviceRegisterEvents(board: Board, kinds: int, events: object) -> None:  # noqa: N802
    """Refuse, as where a user may not."""
    if os.environ.get("RECORDED_NO_EVENTS"):
        raise NVMLError("Insufficient Permissions")


def nvmlEventSetWait_v2(events: object, timeout_ms: int) -> Any:  # noqa: N802
    """Return an event, or time out."""
    if XID:
        return SimpleNamespace(device=BOARDS[0], eventData=XID.pop())
    time.sleep(timeout_ms / 1000)
    raise NVMLError("Timeout")


if os.environ.get("RECORDED_STATE") == "busy":
    IDLE.update(BUSY)
globals().update({question: _answer(question) for question, *_ in [*IDLE, *BUSY]})
for _question in ("nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetDeviceHandleFromMigDeviceHandle"):
    globals()[_question] = _refuse(_question)
