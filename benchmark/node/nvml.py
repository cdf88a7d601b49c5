"""Ask NVIDIA's driver, through NVML. Whatever a GPU or a driver does not tell is absent, never zero."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmark.records import Gpu, GpuProcess
from benchmark.records.environment import throttle_reasons

MIB = 2**20
# What NVML says where a number is not to be had.
NOT_AVAILABLE = 2**64 - 1


class NoDriver(Exception):
    """The driver cannot be asked; the message says why, in a sentence."""


class Driver:
    """An open session with the driver. Every question returns None where it is not answered."""

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml

    def ask(self, question: str, *words: Any) -> Any:
        """Call one of NVML's functions; None where this library lacks it, or this GPU or driver refuses."""
        function: Callable[..., Any] | None = getattr(self.nvml, question, None)
        if function is None:
            return None
        try:
            return function(*words)
        except self.nvml.NVMLError:
            return None

    def handle(self, uuid: str) -> Any:
        """Return the GPU (or MIG slice) of a UUID as torch or NVML writes it; None where the driver knows none.

        By UUID, for NVML counts all GPUs of the machine and CUDA_VISIBLE_DEVICES hides and reorders them.
        """
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        return next((found for name in names if (found := self.ask("nvmlDeviceGetHandleByUUID", name))), None)

    def board(self, handle: Any) -> Any:
        """Return the whole GPU that a MIG slice is part of, or the GPU itself."""
        return self.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle

    @property
    def version(self) -> str | None:
        """The driver's version."""
        return _text(self.ask("nvmlSystemGetDriverVersion"))

    @property
    def cuda(self) -> str | None:
        """The newest CUDA version that the driver can serve."""
        number = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        return None if number is None else f"{number // 1000}.{number % 1000 // 10}"

    def describe(self, gpu: Gpu) -> Gpu:
        """Return what torch knows of a GPU together with what the driver knows."""
        slice_ = self.handle(gpu.uuid)
        if slice_ is None:
            return gpu
        board, nvml = self.board(slice_), self.nvml
        mode = self.ask("nvmlDeviceGetEccMode", board)
        return Gpu.model_validate(
            {
                **dict(gpu),
                "vbios": _text(self.ask("nvmlDeviceGetVbiosVersion", board)) or "",
                "power_limit_w": _thousandth(self.ask("nvmlDeviceGetEnforcedPowerLimit", board)),
                "power_limit_default_w": _thousandth(self.ask("nvmlDeviceGetPowerManagementDefaultLimit", board)),
                "sm_clock_max_mhz": self.ask("nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_SM),
                "sm_clock_set_mhz": self.ask("nvmlDeviceGetApplicationsClock", board, nvml.NVML_CLOCK_SM),
                "memory_clock_max_mhz": self.ask("nvmlDeviceGetMaxClockInfo", board, nvml.NVML_CLOCK_MEM),
                "throttle_reasons": throttle_reasons(self.throttle_mask(board) or 0),
                "ecc": None if mode is None else bool(mode[0]),
                "ecc_corrected": self.ecc_errors(board, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
                "ecc_uncorrected": self.ecc_errors(board, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
                "mig": _first(self.ask("nvmlDeviceGetMigMode", board)),
                "persistence": _yes(self.ask("nvmlDeviceGetPersistenceMode", board)),
                "pcie_generation": self.ask("nvmlDeviceGetCurrPcieLinkGeneration", board),
                "pcie_generation_max": self.ask("nvmlDeviceGetMaxPcieLinkGeneration", board),
                "pcie_width": self.ask("nvmlDeviceGetCurrPcieLinkWidth", board),
                "pcie_width_max": self.ask("nvmlDeviceGetMaxPcieLinkWidth", board),
            }
        )

    def throttle_mask(self, board: Any) -> int | None:
        """Return the bits of why the clocks are held down."""
        mask = self.ask("nvmlDeviceGetCurrentClocksEventReasons", board)
        if mask is None:  # its name before driver 535
            mask = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons", board)
        return None if mask is None else int(mask)

    def ecc_errors(self, board: Any, kind: int) -> int | None:
        """Return how many errors of a kind were counted since the driver was loaded."""
        count = self.ask("nvmlDeviceGetTotalEccErrors", board, kind, self.nvml.NVML_VOLATILE_ECC)
        return None if count is None else int(count)

    def processes(self) -> dict[str, tuple[GpuProcess, ...]]:
        """Return who else uses each GPU of the machine, by UUID, MIG slices among them.

        To be asked before this process touches a GPU; in a container the driver may show nobody.
        """
        found = {}
        for handle in self._handles():
            uuid = _text(self.ask("nvmlDeviceGetUUID", handle))
            if uuid:
                found[uuid] = tuple(self._processes_on(handle))
        return found

    def _handles(self) -> Iterator[Any]:
        for index in range(self.ask("nvmlDeviceGetCount") or 0):
            board = self.ask("nvmlDeviceGetHandleByIndex", index)
            if board is None:
                continue
            yield board
            for number in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", board) or 0):
                slice_ = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", board, number)
                if slice_ is not None:
                    yield slice_

    def _processes_on(self, handle: Any) -> Iterator[GpuProcess]:
        seen = {os.getpid()}
        questions = (
            ("compute", "nvmlDeviceGetComputeRunningProcesses"),
            ("graphics", "nvmlDeviceGetGraphicsRunningProcesses"),
        )
        for kind, question in questions:
            for process in self.ask(question, handle) or ():
                if process.pid in seen:
                    continue
                seen.add(process.pid)
                used = process.usedGpuMemory
                known = used is not None and used != NOT_AVAILABLE
                yield GpuProcess(
                    pid=process.pid,
                    name=self._program(process.pid),
                    user=_user(process.pid),
                    memory_mib=used // MIB if known else None,
                    kind="compute" if kind == "compute" else "graphics",
                )

    def _program(self, pid: int) -> str:
        name = _text(self.ask("nvmlSystemGetProcessName", pid))
        if not name:
            try:
                name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                return ""
        return name[-200:]


@contextmanager
def driver() -> Iterator[Driver]:
    """Open a session with the driver. Raises NoDriver where that cannot be."""
    try:
        import pynvml
    except ImportError:
        raise NoDriver("nvidia-ml-py is not installed: run playbooks/provision.yml.") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoDriver(f"NVML does not answer: {error}.") from None
    try:
        yield Driver(pynvml)
    finally:
        pynvml.nvmlShutdown()


def _text(value: Any) -> str | None:
    """Return text that old libraries give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _first(pair: Any) -> bool | None:
    return None if pair is None else bool(pair[0])


def _yes(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _user(pid: int) -> str:
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
