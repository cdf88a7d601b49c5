"""Query NVIDIA's driver through NVML. A value that a GPU or a driver does not report is absent, never zero.

Without the records, to keep the process small that watches the node during a measurement.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

MIB = 2**20
# NVML's value for an unavailable number.
NOT_AVAILABLE = 2**64 - 1
# Of nvmlReturn_t: the codes for a GPU that this user may not use, and for a broken one (its power cable, its interrupt,
# off the bus, needs a reset, unknown).
NO_PERMISSION = 4
LOST = {8, 11, 15, 16, 999}


class NoDriver(Exception):
    """The driver cannot be queried; the message says why, in a sentence."""


class Driver:
    """An open session with the driver. Every query returns None if it is not answered."""

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml

    def ask(self, question: str, *words: Any) -> Any:
        """Call an NVML function; None if this library lacks it, or this GPU or driver refuses."""
        return self.try_ask(question, *words)[0]

    def try_ask(self, question: str, *words: Any) -> tuple[Any, Exception | None]:
        """Return an NVML function's result, or None and the error; both None if the library lacks the function."""
        function: Callable[..., Any] | None = getattr(self.nvml, question, None)
        if function is None:
            return None, None
        try:
            return function(*words), None
        except self.nvml.NVMLError as error:
            return None, error

    def is_lost(self, error: Exception) -> bool:
        """Return whether the error means that the GPU itself is broken, not that the query is not supported."""
        return getattr(error, "value", None) in LOST

    def is_forbidden(self, error: Exception | None) -> bool:
        """Return whether the error means that this user may not use the GPU."""
        return getattr(error, "value", None) == NO_PERMISSION

    def count(self) -> int:
        """Return the number of GPUs of the machine, including those that do not answer."""
        return int(self.ask("nvmlDeviceGetCount") or 0)

    def handle(self, uuid: str) -> Any:
        """Return the GPU (or MIG slice) with a UUID as written by torch or NVML; None if the driver knows none.

        By UUID, as NVML counts all GPUs of the machine, but CUDA_VISIBLE_DEVICES hides and reorders them.
        """
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        return next((found for name in names if (found := self.ask("nvmlDeviceGetHandleByUUID", name))), None)

    def board(self, handle: Any) -> Any:
        """Return the GPU that a MIG slice is part of, or the GPU itself."""
        return self.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle

    @property
    def version(self) -> str | None:
        """The driver's version."""
        return as_text(self.ask("nvmlSystemGetDriverVersion"))

    @property
    def cuda(self) -> str | None:
        """The newest CUDA version that the driver supports."""
        number = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        return None if number is None else f"{number // 1000}.{number % 1000 // 10}"

    def throttle_mask(self, board: Any) -> int | None:
        """Return the bit mask of reasons for throttled clocks."""
        mask = self.ask("nvmlDeviceGetCurrentClocksEventReasons", board)
        if mask is None:  # its name before driver 535
            mask = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons", board)
        return None if mask is None else int(mask)

    def ecc_errors(self, board: Any, kind: int) -> int | None:
        """Return the number of errors of a kind since the driver was loaded."""
        count = self.ask("nvmlDeviceGetTotalEccErrors", board, kind, self.nvml.NVML_VOLATILE_ECC)
        return None if count is None else int(count)

    def describe_process(self, process: Any) -> dict[str, Any]:
        """Return the facts about a process that NVML has found on a GPU: pid, name, user, memory_mib."""
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
        """Yield every GPU of the machine and every MIG slice, visible to this run or not."""
        for index in range(self.count()):
            board = self.ask("nvmlDeviceGetHandleByIndex", index)
            if board is None:
                continue  # `present_gpus` reports it
            yield board
            yield from self.slices(board)

    def slices(self, board: Any) -> Iterator[Any]:
        """Yield a GPU's MIG slices."""
        for number in range(self.ask("nvmlDeviceGetMaxMigDeviceCount", board) or 0):
            slice_ = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", board, number)
            if slice_ is not None:
                yield slice_


@contextmanager
def driver() -> Iterator[Driver]:
    """Open a session with the driver. Raises NoDriver if that is impossible."""
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
    """Return text, which old libraries return as bytes."""
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
