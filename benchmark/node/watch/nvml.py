"""Ask NVIDIA's driver, through NVML. Whatever a GPU or a driver does not tell is absent, never zero.

Without the records, for the process that watches the node while it measures is to be small.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

MIB = 2**20
# What NVML says where a number is not to be had.
NOT_AVAILABLE = 2**64 - 1
# Of nvmlReturn_t: what is said of a GPU that this user may not use, and of one that is broken (its power cable, its
# interrupt, off the bus, to be reset, unknown).
NO_PERMISSION = 4
LOST = {8, 11, 15, 16, 999}


class NoDriver(Exception):
    """The driver cannot be asked; the message says why, in a sentence."""


class Driver:
    """An open session with the driver. Every question returns None where it is not answered."""

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml

    def ask(self, question: str, *words: Any) -> Any:
        """Call one of NVML's functions; None where this library lacks it, or this GPU or driver refuses."""
        return self.try_ask(question, *words)[0]

    def try_ask(self, question: str, *words: Any) -> tuple[Any, Exception | None]:
        """Return the answer of one of NVML's functions, or None and the error; both None where the library lacks it."""
        function: Callable[..., Any] | None = getattr(self.nvml, question, None)
        if function is None:
            return None, None
        try:
            return function(*words), None
        except self.nvml.NVMLError as error:
            return None, error

    def is_lost(self, error: Exception) -> bool:
        """Return whether the error says that the GPU itself is broken, not that it does not know the question."""
        return getattr(error, "value", None) in LOST

    def is_forbidden(self, error: Exception | None) -> bool:
        """Return whether the error says that this user may not use the GPU."""
        return getattr(error, "value", None) == NO_PERMISSION

    def count(self) -> int:
        """Return how many GPUs the machine has, those among them that do not answer."""
        return int(self.ask("nvmlDeviceGetCount") or 0)

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
        return as_text(self.ask("nvmlSystemGetDriverVersion"))

    @property
    def cuda(self) -> str | None:
        """The newest CUDA version that the driver can serve."""
        number = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        return None if number is None else f"{number // 1000}.{number % 1000 // 10}"

    def throttle_mask(self, board: Any) -> int | None:
        """Return the bits of why the clocks are throttled."""
        mask = self.ask("nvmlDeviceGetCurrentClocksEventReasons", board)
        if mask is None:  # its name before driver 535
            mask = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons", board)
        return None if mask is None else int(mask)

    def ecc_errors(self, board: Any, kind: int) -> int | None:
        """Return how many errors of a kind were counted since the driver was loaded."""
        count = self.ask("nvmlDeviceGetTotalEccErrors", board, kind, self.nvml.NVML_VOLATILE_ECC)
        return None if count is None else int(count)

    def describe_process(self, process: Any) -> dict[str, Any]:
        """Return what is known of a process that NVML has found on a GPU: pid, name, user, memory_mib."""
        used = process.usedGpuMemory
        return {
            "pid": process.pid,
            "name": self._program(process.pid),
            "user": _user(process.pid),
            "memory_mib": None if used is None or used == NOT_AVAILABLE else used // MIB,
        }

    def _program(self, pid: int) -> str:
        name = as_text(self.ask("nvmlSystemGetProcessName", pid))
        if not name:
            try:
                name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                return ""
        return name[-200:]

    def handles(self) -> Iterator[Any]:
        """Return every GPU of the machine and every MIG slice, visible to this run or not."""
        for index in range(self.count()):
            board = self.ask("nvmlDeviceGetHandleByIndex", index)
            if board is None:
                continue  # `present_gpus` names it
            yield board
            yield from self.slices(board)

    def slices(self, board: Any) -> Iterator[Any]:
        """Return a GPU's MIG slices."""
        for number in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", board) or 0):
            slice_ = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", board, number)
            if slice_ is not None:
                yield slice_


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


def as_text(value: Any) -> str | None:
    """Return text, which old libraries give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _user(pid: int) -> str:
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
