"""A run that LoadGen drives ends whatever the engine, the disk or a signal does, and keeps what it measured."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmark.files import read_samples
from tests.unit.node.loadgen_runs import measure, start, written


def test_a_failed_query_neither_hangs_loadgen_nor_is_softened(tmp_path: Path) -> None:
    result = measure(tmp_path, {"engine_options": {"ttft_ms": 1, "fail_indexes": [3]}})
    assert result.metrics is not None
    assert result.metrics.queries.failed == 1
    assert result.verdict is not None
    assert "failed queries 1 is above the allowed 0." in result.verdict.reasons


def test_a_broken_engine_ends_the_run_with_its_message(tmp_path: Path) -> None:
    # LoadGen would wait: ten minutes for its schedule, and for ever for the query that is lost.
    options = {"scenario": "Server", "min_duration_ms": 600_000}
    process = start(tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 1, "break_at": 30}})
    assert process.wait(timeout=60) == 4
    result = written(tmp_path)
    assert (result.status, result.stage) == ("failed", "measuring")
    assert result.error == "The simulated engine is set to break."
    assert result.metrics is not None
    assert result.metrics.queries.completed >= 20


@pytest.mark.parametrize("scenario", ["Server", "Offline"])
def test_a_stopped_run_keeps_what_it_measured(tmp_path: Path, scenario: str) -> None:
    options = {"scenario": scenario, "min_duration_ms": 600_000}
    process = start(tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 10, "slots": 2}})
    path = tmp_path / "samples.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, (tmp_path / "benchmark.log").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 4
    result = written(tmp_path)
    assert (result.status, result.error) == ("interrupted", "The run was stopped by SIGTERM.")
    samples = read_samples(path)
    assert result.metrics is not None
    assert result.metrics.queries.completed == len(samples) >= 5
    assert result.metrics.queries.unfinished > 0 or scenario == "Server"


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a few kilobytes takes root to mount")
def test_a_full_disk_ends_the_run_and_there_is_room_to_say_so(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], check=True)
    try:
        options = {"scenario": "Server", "min_duration_ms": 600_000}
        process = start(tmp_path, {"scenario_options": options, "engine_options": {"ttft_ms": 1}})
        assert process.wait(timeout=120) == 4
        result = written(tmp_path)
        assert (result.status, result.stage) == ("failed", "measuring")
        assert result.error is not None
        assert "No space left on device" in result.error
        assert result.metrics is not None
        assert result.metrics.queries.completed > 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
