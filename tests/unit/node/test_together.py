from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from benchmark.errors import RunError
from benchmark.node import together
from benchmark.node.lock import STARTING, Lock
from benchmark.rundir import BELL, GO, READY
from tests.unit.node.led import put

HOUR_S = 3600


def start_of(directory: Path) -> together.Start:
    """Wait for the word to start, which another thread puts once the node waits."""

    def tell() -> None:
        while not (directory / READY).exists() or not (directory / BELL).exists():
            time.sleep(0.005)
        put(directory, GO, 123)

    telling = threading.Thread(target=tell)
    telling.start()
    start = together.wait_for_start(directory, HOUR_S, None, Lock(directory / STARTING))
    telling.join()
    return start


def test_a_node_that_waits_is_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "LOOK_S", HOUR_S)
    assert start_of(tmp_path).unix_ns == 123
    assert not (tmp_path / BELL).exists()


def test_without_named_pipes_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        path.touch()
        raise PermissionError

    monkeypatch.setattr(os, "mkfifo", refuse)
    monkeypatch.setattr(together, "LOOK_S", HOUR_S)
    assert start_of(tmp_path).unix_ns == 123


def test_a_word_that_was_there_before_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "LOOK_S", HOUR_S)
    put(tmp_path, GO, 7)
    assert together.wait_for_start(tmp_path, HOUR_S, None, Lock(tmp_path / STARTING)).unix_ns == 7


def test_a_clock_that_was_set_back_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, GO, time.time_ns() + HOUR_S * 10**9)
    with pytest.raises(RunError, match=r"3600 s away by this node's clock, which was set back .* measured\.$"):
        together.wait_for_start(tmp_path, HOUR_S, None, Lock(tmp_path / STARTING))


def test_whoever_rings_does_not_wait_for_a_run_that_has_died(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / BELL)
    put(tmp_path, GO, 7)
    assert (tmp_path / GO).read_text() == "7\n"
