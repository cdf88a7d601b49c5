"""Which cores the engine's threads get, by recorded answers of the driver; and real threads that are moved."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmark.node import pinning
from benchmark.node.pinning import Pinned, Places
from tests.unit.node.recorded import recorded_nvml

UUIDS = [f"GPU-{number}" for number in range(4)]
# Two sockets of eight cores; the second hardware thread of core n is n + 16.
SOCKETS = [{*range(8), *range(16, 24)}, {*range(8, 16), *range(24, 32)}]


def mask(cpus: set[int]) -> list[int]:
    return [sum(1 << cpu for cpu in cpus), *[0] * 15]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return NVML of a machine with two GPUs at each socket, and have this process see its CPUs."""
    module: Any = recorded_nvml()
    near = {uuid: SOCKETS[number // 2] for number, uuid in enumerate(UUIDS)}
    module.BOARDS[:] = [module.Board(uuid=uuid) for uuid in reversed(UUIDS)]
    module.nvmlDeviceGetCpuAffinity = lambda board, words: mask(near[board.uuid])[:words]
    module.NEAR = near
    monkeypatch.setitem(sys.modules, "pynvml", module)
    for cpu in range(32):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 16},{cpu % 16 + 16}\n")
    monkeypatch.setattr(pinning, "CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(32)))
    return module


def test_gpus_share_out_the_cores_near_them(machine: Any) -> None:
    found = [pinning.choose(uuid.removeprefix("GPU-")) for uuid in UUIDS]
    assert found == [
        Places((0, 16), (1, 2, 3, 17, 18, 19)),
        Places((4, 20), (5, 6, 7, 21, 22, 23)),
        Places((8, 24), (9, 10, 11, 25, 26, 27)),
        Places((12, 28), (13, 14, 15, 29, 30, 31)),
    ]


def test_only_cpus_that_this_process_may_use_are_taken(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 3, 5, 6, 7, 21, 9})
    assert pinning.choose(UUIDS[0]) == Places((2,), (3,))
    assert pinning.choose(UUIDS[1]) == Places((5, 21), (6, 7))
    assert pinning.choose(UUIDS[3]) == "1 cores near the GPU may be used, and 2 GPUs share them"


@pytest.mark.parametrize("uuid", ["GPU-9", UUIDS[2]])
def test_where_the_driver_does_not_tell_nothing_is_pinned(machine: Any, uuid: str) -> None:
    machine.NEAR[UUIDS[2]] = set()
    assert "driver does not" in str(pinning.choose(uuid))


def test_without_a_driver_nothing_is_pinned(machine: Any) -> None:
    machine.INIT_ERROR = "Driver Not Loaded"
    assert pinning.choose(UUIDS[0]) == "NVML does not answer: Driver Not Loaded"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU leaves nothing to choose")
def test_threads_go_to_their_places_and_back() -> None:
    before = os.sched_getaffinity(0)
    first, *rest = sorted(before)
    told, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        told.set()
        go_on.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    told.wait()
    number = thread.native_id or 0
    pinned = Pinned(Places((first,), tuple(rest)), number)
    try:
        assert os.sched_getaffinity(number) == {first}
        assert os.sched_getaffinity(0) == set(rest)
        later: list[set[int]] = []
        starter = threading.Thread(target=lambda: later.append(os.sched_getaffinity(0)))
        starter.start()
        starter.join()
        assert later == [set(rest)]  # LoadGen's threads are made later
        assert pinned.told() == {"generation": [first], "others": rest}
    finally:
        pinned.release()
        go_on.set()
        thread.join()
    assert os.sched_getaffinity(0) == before
