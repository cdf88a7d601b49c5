"""Keep the engine's threads on cores near its GPU, and a core for the generation thread alone.

The generation thread starts every kernel: where it moves to a core of another socket, or waits for one that a listener
or LoadGen has, the GPU waits too. The driver tells which cores a GPU is near; GPUs that are near the same ones share
them out, so that replicas, each in a process of its own, do not meet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from benchmark.node.nvml import Driver, NoDriver, as_text, driver

CPUS = Path("/sys/devices/system/cpu")
TASKS = Path("/proc/self/task")
# One core for the generation thread, and as much again for all others at least.
LEAST_CORES = 2
MOST_CPUS = 1024


@dataclass(frozen=True)
class Places:
    """Numbers of CPUs (hardware threads), as the system counts them."""

    generation: tuple[int, ...]
    others: tuple[int, ...]


def choose(uuid: str) -> Places | str:
    """Return the places for the engine on a GPU, or why there are none, as the end of a sentence."""
    try:
        with driver() as asked:
            near = _near(asked, uuid)
    except NoDriver as reason:
        return str(reason).rstrip(".")
    if isinstance(near, str):
        return near
    cpus, number, sharers = near
    cores = _cores(cpus & os.sched_getaffinity(0))
    share = cores[number * len(cores) // sharers : (number + 1) * len(cores) // sharers]
    if len(share) < LEAST_CORES:
        return f"{len(cores)} cores near the GPU may be used, and {sharers} GPUs share them"
    return Places(share[0], tuple(sorted(cpu for core in share[1:] for cpu in core)))


class Pinned:
    """Threads of this process in their places, until `release`."""

    def __init__(self, places: Places, generation_thread: int) -> None:
        """Put all threads into their places; `generation_thread` is the system's number of that one."""
        self._before = os.sched_getaffinity(0)
        self._places = places
        _move(_threads() - {generation_thread}, places.others)
        _move([generation_thread], places.generation)

    def told(self) -> dict[str, JsonValue]:
        """Return what was done, for the result."""
        return {"generation": list(self._places.generation), "others": list(self._places.others)}

    def release(self) -> None:
        """Let all threads go where they could before."""
        _move(_threads(), self._before)


def _near(asked: Driver, uuid: str) -> tuple[set[int], int, int] | str:
    """Return the CPUs near the GPU, its number among the GPUs that are near the same ones, and how many these are."""
    own = asked.handle(uuid)
    if own is None:
        return "the driver does not know the GPU"
    own_uuid = as_text(asked.ask("nvmlDeviceGetUUID", asked.board(own)))
    cpus = _affinity(asked, asked.board(own))
    boards = (asked.ask("nvmlDeviceGetHandleByIndex", i) for i in range(asked.ask("nvmlDeviceGetCount") or 0))
    sharers = sorted(
        as_text(asked.ask("nvmlDeviceGetUUID", board)) or ""
        for board in boards
        if board is not None and _affinity(asked, board) == cpus
    )
    if not cpus or own_uuid not in sharers:
        return "the driver does not tell which cores the GPU is near"
    return cpus, sharers.index(own_uuid), len(sharers)


def _affinity(asked: Driver, board: object) -> set[int]:
    words = asked.ask("nvmlDeviceGetCpuAffinity", board, MOST_CPUS // 64) or ()
    return {64 * number + bit for number, word in enumerate(words) for bit in range(64) if int(word) >> bit & 1}


def _cores(cpus: set[int]) -> list[tuple[int, ...]]:
    """Return those of the CPUs that are hardware threads of one core together, core by core."""
    return sorted({tuple(sorted(_siblings(cpu) & cpus)) for cpu in cpus})


def _siblings(cpu: int) -> set[int]:
    try:
        text = (CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
        spans = [part.split("-") for part in text.strip().split(",")]
        return {cpu} | {one for span in spans for one in range(int(span[0]), int(span[-1]) + 1)}
    except (OSError, ValueError):
        return {cpu}


def _threads() -> set[int]:
    return {int(task.name) for task in TASKS.iterdir()}


def _move(threads: Iterable[int], cpus: Iterable[int]) -> None:
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:
            continue  # it has ended
