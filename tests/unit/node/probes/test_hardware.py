"""Probes of this machine's own hardware, in their processes: no GPU is needed."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmark.node.probes import hardware, measuring
from benchmark.node.probes.found import of_scope
from benchmark.node.probes.hardware import probe_hardware, probed_directory, serves_already
from benchmark.node.probes.interfaces import Figure, Host
from benchmark.resolve import resolve
from tests.processes import assert_ended

ROOT = Path(hardware.ROOT)
NODES_OWN = {"cpu_one_core", "cpu_all_cores", "host_memory_copy"}


def test_a_node_is_probed_and_a_gpu_that_cannot_be_is_noted(tmp_path: Path) -> None:
    # There is no GPU here: its process ends with torch's own words.
    probes = probe_hardware(tmp_path, 1)
    assert probes.node.keys() == NODES_OWN  # nothing lies on this disk to be read
    assert all(name.isidentifier() and name.islower() for name in probes.node)
    assert all(figure.value > 0 and figure.better == "higher" for figure in probes.node.values())
    (gpu,) = probes.gpus
    assert gpu.figures == {}
    (note,) = probes.notes
    assert note.startswith("GPU 0: the probes ended with exit code 1: ")
    assert dict(probes.between_gpus) == {}
    assert probes.seconds > 0


def test_what_a_disk_holds_is_read_around_the_cache(tmp_path: Path) -> None:
    disk = next(probe for probe in of_scope("node") if probe.__name__.endswith(".disk"))
    (tmp_path / "weights").write_bytes(os.urandom(2**20) * 80)
    try:
        os.close(os.open(tmp_path / "weights", os.O_RDONLY | os.O_DIRECT))
    except OSError:
        assert disk.measure(Host(tmp_path, 1)) == {}
    else:
        assert disk.measure(Host(tmp_path, 1))["disk_read"].value > 0


def test_one_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe:
        def __init__(self, name: str, found: object) -> None:
            self.__name__, self.found = name, found

        def measure(self, place: object) -> object:
            if isinstance(self.found, Exception):
                raise self.found
            return self.found

    probes = [Probe("a.host_memory", RuntimeError("out\nof memory")), Probe("a.cpu", {"cpu": Figure(1, "MB/s")})]
    probes.append(Probe("a.jump", {"wild": Figure(math.nan, "MB/s"), "clock": Figure(math.inf, "GB/s")}))
    monkeypatch.setattr(measuring, "of_scope", lambda scope: probes)
    found = measuring.measure("node", None)
    assert found["figures"] == {"cpu": {"value": 1, "unit": "MB/s"}}
    assert found["notes"] == [
        "host memory: RuntimeError: out of memory",
        "wild: the result was nan MB/s, which is not a valid figure.",
        "clock: the result was inf GB/s, which is not a valid figure.",
    ]


def test_one_that_hangs_is_ended_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "LIMIT_S", 0.5)
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "sleep 1000 & echo $! > pids; sleep 1000"))
    monkeypatch.chdir(tmp_path)
    probes = probe_hardware(tmp_path, 0)
    assert probes.notes == ("the node: the probes did not end within 0.5 s.",)
    assert_ended(int((tmp_path / "pids").read_text()))


def test_several_that_hang_have_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "LIMIT_S", 2)
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "exec sleep 1000"))
    began = time.monotonic()
    probes = probe_hardware(tmp_path, 8)
    # One after the other it would be 18 s.
    assert time.monotonic() - began < 16
    assert probes.notes[1:9] == tuple(f"GPU {index}: the probes did not end within 2 s." for index in range(8))
    assert [gpu.figures for gpu in probes.gpus] == [{}] * 8


def test_one_that_cannot_be_killed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a process that hangs in a driver: it outlives the kill, and keeps the output open.
    monkeypatch.setattr(hardware, "LIMIT_S", 0.5)
    monkeypatch.setattr(hardware, "GONE_S", 0.5)
    command = f"setsid {shutil.which('sleep')} 1000 & echo $! > pids; exec sleep 1000"
    monkeypatch.setattr(sys, "executable", _program(tmp_path, command))
    monkeypatch.chdir(tmp_path)
    try:
        assert probe_hardware(tmp_path, 0).notes == ("the node: the probes did not end within 0.5 s.",)
    finally:
        os.kill(int((tmp_path / "pids").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "note"),
    [
        (
            "echo '{not: json}'; echo '{}'; echo '{\"figures\": 1}'; echo torn >&2; exit 3",
            "ended with exit code 3: torn",
        ),
        ("kill -KILL $$", "were killed (SIGKILL): probably the node's memory, or the run's share of it, ran out."),
        ("exec >&-; exec sleep 1000", "closed their output: it printed nothing"),
    ],
)
def test_what_is_no_answer_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, note: str
) -> None:
    monkeypatch.setattr(hardware, "GONE_S", 0.5)
    monkeypatch.setattr(sys, "executable", _program(tmp_path, command))
    assert probe_hardware(tmp_path, 0).notes == (f"the node: the probes {note}",)


def test_a_directory_with_too_many_files_costs_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = next(probe for probe in of_scope("node") if probe.__name__.endswith(".disk"))
    (tmp_path / "gone").symlink_to("nowhere")
    with (tmp_path / "weights").open("wb") as weights:
        weights.truncate(80 * 2**20)
    for looks, found in ((60.0, tmp_path / "weights"), (-1.0, None)):
        monkeypatch.setattr(disk, "LOOK_S", looks)
        monkeypatch.setattr(os, "walk", lambda directory: [(str(directory), [], ["gone", "weights"])])
        assert disk._largest(tmp_path) == found


def test_probes_end_when_their_run_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        from pathlib import Path
        from benchmark.node.probes import hardware
        with hardware._process("node", "/nowhere") as process:
            print(process.pid, flush=True)
            process._process.wait()
        """)
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert run.stdout
    pid = int(run.stdout.readline())
    deadline = time.monotonic() + 30
    while not Path(f"/proc/{pid}/task").is_dir() or len(list(Path(f"/proc/{pid}/task").iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert_ended(pid)


def test_the_disk_is_that_of_the_model_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    asked = resolve({"benchmark_model": str(tmp_path)})
    assert probed_directory(asked.settings, asked.profile) == tmp_path
    asked = resolve({"benchmark_model": str(tmp_path), "benchmark_profile": "hardware"})
    assert probed_directory(asked.settings, asked.profile) == Path(sys.prefix)


@pytest.mark.parametrize(
    ("given", "busy"),
    [
        ({"benchmark_endpoint_urls": ["http://127.0.0.1:1"]}, True),
        ({"benchmark_endpoint_start": "serve {port}", "benchmark_endpoint_urls": ["http://127.0.0.1:1"]}, False),
    ],
)
def test_gpus_of_a_server_that_runs_already_are_let_be(given: dict[str, object], busy: bool) -> None:
    asked = resolve({"benchmark_engine": "endpoint", **given})
    assert serves_already(asked.settings, asked.profile) is busy


def _program(directory: Path, command: str) -> str:
    program = directory / "python"
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)
    return str(program)
