"""Whether every GPU that a run is to use is there: the driver's list, CUDA_VISIBLE_DEVICES and what torch sees.

A GPU that fell off its bus is still counted by the driver, and CUDA passes over it in silence: seven of eight would be
measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.errors import SetupError
from benchmark.node.watch.nvml import Driver, NoDriver, as_text, driver
from benchmark.records import Gpu
from benchmark.visible_devices import NAME, Visible, read
from benchmark.words import plural

REMEDY = (
    "Look at nvidia-smi and at the kernel's messages (Xid); a reset or a restart mostly brings a GPU back. "
    f"To measure the others alone, list them in {NAME} (benchmark_environment)."
)


@dataclass(frozen=True)
class Listed:
    """One GPU of the driver's list, by the driver's own number."""

    index: int
    uuid: str = ""
    name: str = ""
    uuids: tuple[str, ...] = ()
    """Its own UUID and those of its MIG slices."""
    error: str | None = None
    """What the driver says where it cannot be asked about the GPU."""
    sliced: bool = False
    """Whether it is in MIG mode: what torch sees then are its slices."""

    def __str__(self) -> str:
        return f"GPU {self.index}" + (f" ({', '.join(filter(None, (self.name, self.uuid)))})" if self.uuid else "")


def listed(asked: Driver) -> tuple[Listed, ...]:
    """Return every GPU that the driver counts, those in error among them; none that this user may not use."""
    return tuple(one for index in range(asked.count()) if (one := _look(asked, index)) is not None)


def visible() -> Visible | None:
    """Return what CUDA makes of CUDA_VISIBLE_DEVICES on this machine; None where it is not set."""
    value = os.environ.get(NAME)
    if value is None:
        return None
    try:
        with driver() as asked:
            boards = listed(asked)
            return read(value, asked.count(), [uuid for board in boards for uuid in board.uuids])
    except NoDriver:
        return read(value)


def left_out() -> str | None:
    """Return the sentence on what CUDA leaves out of CUDA_VISIBLE_DEVICES; None: nothing, or it is not set."""
    found = visible()
    return None if found is None else found.left_out


def require_all(boards: Sequence[Listed], seen: Sequence[Gpu], found: Visible | None) -> None:
    """Raise SetupError, naming each, where a GPU that the run is to use is not among those that torch sees.

    That is every GPU of the machine, or as many as CUDA takes of CUDA_VISIBLE_DEVICES. `found` is what it takes; None:
    the variable is not set.
    """
    if found is not None:
        _require_listed(boards, seen, found)
        return
    if any(board.sliced for board in boards):
        boards = [board for board in boards if board.error is not None]  # which slices torch sees, CUDA decides
    lost = [board for board in boards if board.error is not None or not _is_seen(board.uuid, seen)]
    if lost:
        reported = [f"{board} is not usable: {board.error or 'torch does not see it'}." for board in lost]
        total = len(seen) + len(lost)
        raise SetupError(
            "\n".join([*reported, f"The driver lists {plural(total, 'GPU')} and torch sees {len(seen)}. {REMEDY}"])
        )


def _require_listed(boards: Sequence[Listed], seen: Sequence[Gpu], found: Visible) -> None:
    if len(seen) < len(found.entries):
        errors = [f"{board} is in error: {board.error}." for board in boards if board.error is not None]
        asked = f"{plural(len(found.entries), 'GPU')} ({', '.join(found.entries)})"
        reported = f"{NAME} asks for {asked} and torch sees {len(seen)}."
        remedy = "CUDA shows a process one slice of a GPU in MIG mode: name one." if found.slices and seen else REMEDY
        raise SetupError("\n".join([*errors, f"{reported} {remedy}"]))


def _is_seen(uuid: str, seen: Sequence[Gpu]) -> bool:
    # Some builds of torch tell no UUID: then it cannot be said which one is missing.
    return not uuid or any(not gpu.uuid or uuid.endswith(gpu.uuid) for gpu in seen)


def _look(asked: Driver, index: int) -> Listed | None:
    board, error = asked.try_ask("nvmlDeviceGetHandleByIndex", index)
    if board is None:
        # In a job of a scheduler the other jobs' GPUs are counted and may not be looked at.
        return None if asked.is_forbidden(error) else Listed(index, error=_words(error))
    uuid, error = asked.try_ask("nvmlDeviceGetUUID", board)
    if error is not None:
        return Listed(index, error=_words(error))
    # A GPU that is lost has a handle, and a UUID that the driver remembers: its memory it cannot count any more.
    _, error = asked.try_ask("nvmlDeviceGetMemoryInfo", board)
    broken = _words(error) if error is not None and asked.is_lost(error) else None
    mode = asked.ask("nvmlDeviceGetMigMode", board)
    own = as_text(uuid) or ""
    slices = [as_text(asked.ask("nvmlDeviceGetUUID", slice_)) or "" for slice_ in asked.slices(board)]
    return Listed(
        index, own, as_text(asked.ask("nvmlDeviceGetName", board)) or "", (own, *slices), broken, bool(mode and mode[0])
    )


def _words(error: Exception | None) -> str:
    return f"the driver says {str(error).strip() or type(error).__name__}" if error else "the driver says nothing of it"
