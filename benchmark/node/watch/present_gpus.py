"""Check that every GPU for a run is present: in the driver's list, CUDA_VISIBLE_DEVICES and torch.

The driver still counts a GPU that fell off its bus, but CUDA silently skips it: seven of eight would be measured.
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
    "Look at nvidia-smi and at the kernel's messages (Xid); a reset or a restart usually brings a GPU back. "
    f"To measure the others alone, list them in {NAME} (benchmark_environment)."
)


@dataclass(frozen=True)
class Listed:
    """One GPU of the driver's list, with the driver's own index."""

    index: int
    uuid: str = ""
    name: str = ""
    uuids: tuple[str, ...] = ()
    """Its own UUID and those of its MIG slices."""
    error: str | None = None
    """The driver's error, if the GPU cannot be queried."""
    sliced: bool = False
    """Whether it is in MIG mode, so that torch sees its slices."""

    def __str__(self) -> str:
        return f"GPU {self.index}" + (f" ({', '.join(filter(None, (self.name, self.uuid)))})" if self.uuid else "")


def listed(asked: Driver) -> tuple[Listed, ...]:
    """Return every GPU that the driver counts, including those with errors, but none that this user may not use."""
    return tuple(one for index in range(asked.count()) if (one := _look(asked, index)) is not None)


def visible() -> Visible | None:
    """Return CUDA's interpretation of CUDA_VISIBLE_DEVICES on this machine; None if it is not set."""
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
    """Return a sentence about what CUDA ignores in CUDA_VISIBLE_DEVICES; None: nothing, or it is not set."""
    found = visible()
    return None if found is None else found.left_out


def require_all(boards: Sequence[Listed], seen: Sequence[Gpu], found: Visible | None) -> None:
    """Raise SetupError, naming each, if torch does not see some of the GPUs for the run.

    These are all GPUs of the machine, or as many as CUDA accepts of CUDA_VISIBLE_DEVICES. `found`: what it accepts;
    None: the variable is not set.
    """
    if found is not None:
        _require_listed(boards, seen, found)
        return
    if any(board.sliced for board in boards):
        boards = [board for board in boards if board.error is not None]  # CUDA decides which slices torch sees
    lost = [board for board in boards if board.error is not None or not _is_seen(board.uuid, seen)]
    if lost:
        reported = [f"{board} is not usable: {board.error or 'torch does not see it'}." for board in lost]
        total = len(seen) + len(lost)
        raise SetupError(
            "\n".join([*reported, f"The driver lists {plural(total, 'GPU')} but torch sees {len(seen)}. {REMEDY}"])
        )


def _require_listed(boards: Sequence[Listed], seen: Sequence[Gpu], found: Visible) -> None:
    if len(seen) < len(found.entries):
        errors = [f"{board} has an error: {board.error}." for board in boards if board.error is not None]
        asked = f"{plural(len(found.entries), 'GPU')} ({', '.join(found.entries)})"
        reported = f"{NAME} lists {asked}, but torch sees {len(seen)}."
        remedy = "CUDA shows a process only one MIG slice: list only one." if found.slices and seen else REMEDY
        raise SetupError("\n".join([*errors, f"{reported} {remedy}"]))


def _is_seen(uuid: str, seen: Sequence[Gpu]) -> bool:
    # Some builds of torch report no UUID: then the missing one cannot be identified.
    return not uuid or any(not gpu.uuid or uuid.endswith(gpu.uuid) for gpu in seen)


def _look(asked: Driver, index: int) -> Listed | None:
    board, error = asked.try_ask("nvmlDeviceGetHandleByIndex", index)
    if board is None:
        # In a scheduler's job the other jobs' GPUs are counted, but may not be queried.
        return None if asked.is_forbidden(error) else Listed(index, error=_words(error))
    uuid, error = asked.try_ask("nvmlDeviceGetUUID", board)
    if error is not None:
        return Listed(index, error=_words(error))
    # A lost GPU still has a handle, and a UUID that the driver remembers, but its memory cannot be queried.
    _, error = asked.try_ask("nvmlDeviceGetMemoryInfo", board)
    broken = _words(error) if error is not None and asked.is_lost(error) else None
    mode = asked.ask("nvmlDeviceGetMigMode", board)
    own = as_text(uuid) or ""
    slices = [as_text(asked.ask("nvmlDeviceGetUUID", slice_)) or "" for slice_ in asked.slices(board)]
    return Listed(
        index, own, as_text(asked.ask("nvmlDeviceGetName", board)) or "", (own, *slices), broken, bool(mode and mode[0])
    )


def _words(error: Exception | None) -> str:
    return f"the driver says {str(error).strip() or type(error).__name__}" if error else "the driver gives no reason"
