"""The process that watches, for real, on recorded values of a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.files import read_ticks
from benchmark.node.watch.environment import foreign_processes
from benchmark.node.watch.sampler import LEAST_LOAD_NS, MAX_BYTES, Board, Host, Sampler
from benchmark.node.watch.telemetry import TELEMETRY, Watch
from benchmark.records import Environment, Gpu, GpuTick, Tick
from benchmark.settings import Settings
from tests.unit.building import HOST
from tests.unit.node.recorded import DIRECTORY, recorded_nvml

UUID = "54485266-68ca-b091-258b-7f599bbb073d"
SEEN = HOST.model_copy(update={"gpus": (Gpu(index=0, name="NVIDIA H100 80GB HBM3", memory_mib=81079, uuid=UUID),)})


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DIRECTORY))
    monkeypatch.setenv("RECORDED_STATE", "busy")


def wait_for_ticks(watch: Watch, count: int) -> list[Tick]:
    while True:
        ticks = list(read_ticks(watch.path)) if watch.path.is_file() else []
        if sum(tick.t_ns >= 0 for tick in ticks) >= count:
            return ticks
        assert watch._process.poll() is None, "the process ended"
        time.sleep(0.02)


def watched(directory: Path, seen: Environment | None = SEEN, count: int = 12) -> tuple[Watch, int]:
    """Watch until there are so many ticks in the window; return the window's length too."""
    watch = Watch(directory, seen)
    watch.idle()
    time.sleep(0.8)
    started = time.monotonic_ns()
    watch.start(started)
    wait_for_ticks(watch, count)
    ended = time.monotonic_ns()
    watch.end(started, ended)
    return watch, ended - started


def test_a_busy_gpu_is_watched(tmp_path: Path, busy: None) -> None:
    watch, window_ns = watched(tmp_path)
    reported = watch.telemetry(None)
    assert reported is not None
    assert reported.note == ""
    assert reported.ticks >= 12
    # Never more often than asked; how much less often depends on the machine.
    assert reported.interval_ms > 95
    assert reported.cost_percent > 0
    assert reported.cpu_percent is not None
    assert reported.memory_mib_max
    (gpu,) = reported.gpus
    assert gpu.utilisation_percent == pytest.approx(98)
    assert gpu.sm_clock_mhz == pytest.approx(1455)
    assert gpu.sm_clock_mhz_min == 1455
    assert (gpu.memory_mib_max, gpu.temperature_c_max) == (1362, 54)
    assert gpu.power_w == pytest.approx(690.483)
    assert gpu.throttled == {"sw_power_cap": 1.0}
    assert (gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.xid) == (0, 0, ())
    assert (gpu.pcie_generation, gpu.pcie_width) == (5, 16)
    ticks = list(read_ticks(tmp_path / TELEMETRY))
    assert [tick.t_ns for tick in ticks] == sorted(tick.t_ns for tick in ticks)
    assert ticks[0].t_ns < 0, "the idle baseline is there"
    readings = [(t.t_ns, gpu.energy_mj) for t in ticks for gpu in t.gpus if gpu.energy_mj is not None]
    within = [mj for t_ns, mj in readings if 0 <= t_ns <= window_ns]
    assert readings[0][0] < 0
    assert readings[-1][0] >= window_ns, "a reading at either end, and beyond it"
    assert reported.energy is not None
    assert reported.energy.window_s == window_ns / 1e9
    assert (within[-1] - within[0]) / 1000 <= reported.energy.joules <= (readings[-1][1] - readings[0][1]) / 1000
    assert reported.energy.idle_w is not None
    assert any(gpu.pcie_tx_kib_s == 1160 and gpu.pcie_rx_kib_s == 2836 for t in ticks for gpu in t.gpus)
    assert any(gpu.memory_temperature_c == 45 for t in ticks for gpu in t.gpus)


def test_who_came_while_it_measured_is_named(tmp_path: Path, busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    come = tmp_path / "come"
    monkeypatch.setenv("RECORDED_VISITORS", str(come))
    come.write_text(f"{os.getpid()}")
    watch = Watch(tmp_path, SEEN)
    watch.idle()
    watch.start(time.monotonic_ns())
    wait_for_ticks(watch, 2)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as ours:
        # The run, one that it started, and another's.
        come.write_text(f"{os.getpid()} {ours.pid} 1 4194400")
        watch.end(time.monotonic_ns() - 10**9, time.monotonic_ns())
        ours.communicate()
    reported = watch.telemetry(None)
    assert reported is not None
    init, gone = reported.gpus[0].foreign_processes
    assert (init.pid, init.user, init.memory_mib) == (1, "root", 16384)
    assert init.name
    assert (gone.pid, gone.name, gone.user) == (4194400, "", "")
    cuda = Settings(benchmark_device="cuda")
    sentences = foreign_processes(cuda, "continuous", reported)
    assert len(sentences) == 2
    assert sentences[0].startswith(f"GPU 0 was used by another process: {init.name} of root, pid 1, 16384 MiB, which")
    assert foreign_processes(cuda, "endpoint", reported) == ()
    assert (
        foreign_processes(cuda.model_copy(update={"benchmark_require_idle_gpus": False}), "continuous", reported) == ()
    )
    assert foreign_processes(cuda, "continuous", None) == ()


def test_events_of_the_driver_are_kept(tmp_path: Path, busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDED_XID", "79 13")
    reported = watched(tmp_path, count=3)[0].telemetry(None)
    assert reported is not None
    assert sorted(reported.gpus[0].xid) == [13, 79]


def test_events_that_are_not_permitted_are_said(tmp_path: Path, busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDED_NO_EVENTS", "1")
    reported = watched(tmp_path, count=3)[0].telemetry(None)
    assert reported is not None
    assert reported.note == "XID errors were not watched: Insufficient Permissions"


def test_without_the_driver_the_host_is_watched_and_it_says_why(tmp_path: Path) -> None:
    reported = watched(tmp_path, count=3)[0].telemetry(None)
    assert reported is not None
    assert reported.note.startswith("the GPUs were not watched: NVML does not answer")
    assert (reported.gpus, reported.energy) == ((), None)
    assert reported.cpu_percent is not None


def test_without_a_gpu_there_is_nothing_to_say(tmp_path: Path) -> None:
    reported = watched(tmp_path, HOST.model_copy(update={"gpus": ()}), count=3)[0].telemetry(None)
    assert reported is not None
    assert (reported.gpus, reported.note) == ((), "")


def test_a_gpu_that_the_driver_does_not_know_is_named(tmp_path: Path, busy: None) -> None:
    other = HOST.model_copy(update={"gpus": (Gpu(index=3, name="X", memory_mib=1, uuid="none"),)})
    reported = watched(tmp_path, other, count=3)[0].telemetry(None)
    assert reported is not None
    assert reported.note == "GPU 3 was not watched: the driver does not know its UUID"


def test_a_window_that_is_over_at_once_has_no_telemetry(tmp_path: Path, busy: None) -> None:
    watch = Watch(tmp_path, SEEN)
    watch.idle()
    now = time.monotonic_ns()
    watch.start(now)
    watch.end(now, now + 1)
    assert watch.telemetry(None) is None


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path, busy: None) -> None:
    code = (
        "import sys, time; from pathlib import Path; from benchmark.node.watch.telemetry import Watch\n"
        "from tests.unit.node.watch.test_telemetry import SEEN\n"
        "w = Watch(Path(sys.argv[1]), SEEN); w.idle(); w.start(time.monotonic_ns())\n"
        "print(w._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{Path.cwd()}:{DIRECTORY}"},
    ) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        path = tmp_path / TELEMETRY
        wait_until(lambda: path.is_file() and path.stat().st_size > 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)  # as the run's process group is told to stop: it stays for the last tick
        before = path.stat().st_size
        wait_until(lambda: path.stat().st_size > before)
        run.kill()
        run.wait()
        wait_until(lambda: not running(pid))


def running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(tell: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not tell():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_watch_costs_no_run(tmp_path: Path, busy: None) -> None:
    watch = Watch(tmp_path, SEEN)
    watch.idle()
    started = time.monotonic_ns()
    watch.start(started)
    wait_for_ticks(watch, 4)
    watch._process.kill()
    watch._process.wait()
    watch.end(started, time.monotonic_ns())
    reported = watch.telemetry(None)
    assert reported is not None
    assert reported.note == "the process that watches the node did not finish"
    assert reported.energy is None


def sampler(path: Path, **answers: Any) -> Sampler:
    nvml = recorded_nvml()
    from benchmark.node.watch.nvml import Driver

    asked = Driver(nvml)
    board = nvml.BOARDS[0]
    return Sampler(str(path), [Board(asked, 0, board, board, sliced=False)], None, [])


def test_a_question_that_is_refused_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sampler(tmp_path / TELEMETRY)
    asked: list[str] = []
    nvml = one.boards[0].asked.nvml

    def refuse(*words: Any) -> None:
        asked.append("power")
        raise nvml.NVMLError("Not Supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetPowerUsage", refuse)
    for _ in range(3):
        one.tick()
    assert asked == ["power"]


def test_a_file_that_grows_too_large_ends_and_it_says_so(tmp_path: Path) -> None:
    one = sampler(tmp_path / TELEMETRY)
    one.start(0)
    one.left = 10
    size = (tmp_path / TELEMETRY).stat().st_size
    one.tick()
    one.tick()
    assert (tmp_path / TELEMETRY).stat().st_size == size
    assert one.notes == [f"telemetry.jsonl reached {MAX_BYTES >> 20} MiB: later samples were not kept"]


def test_a_line_holds_nothing_that_is_not_known(tmp_path: Path) -> None:
    one = sampler(tmp_path / TELEMETRY)
    one.start(0)
    line = json.loads((tmp_path / TELEMETRY).read_text())
    assert "cpu_percent" not in line
    assert "memory_temperature_c" not in line["gpus"][0]


def test_a_load_is_reported_of_a_time_that_is_long_enough() -> None:
    host = Host()
    assert host.look() == {}, "the first answer would be of the time in which the model was loaded"
    burnt_s = time.process_time() + 3 * LEAST_LOAD_NS / 1e9
    while time.process_time() < burnt_s:
        pass
    assert 0 < host.look()["cpu_percent"] <= 100
    host.asked_ns = time.monotonic_ns() + 10**12
    assert host.look() == {}, "over no time there is no load, not one of zero"


def test_windows_that_somebody_else_measured_in(tmp_path: Path) -> None:
    watch = Watch(tmp_path, None)
    watch.close()
    # 100 W before the first window, 200 W in it, 50 W between the two, 300 W in the second.
    second_ns, millijoules, lines = 1_000_000_000, 0, []
    for at_s, watts in enumerate([100, 100, 200, 200, 200, 200, 50, 300, 300, 300, 300], start=-2):
        gpu = GpuTick(index=0, energy_mj=millijoules, power_w=watts)
        lines.append(Tick(t_ns=at_s * second_ns, gpus=(gpu,)).model_dump_json() + "\n")
        millijoules += watts * 1000
    watch.path.write_text("".join(lines))
    first = watch.between(0, 4 * second_ns, None, 1)
    second = watch.between(5 * second_ns, 8 * second_ns, 4 * second_ns, 2)
    energies = [one.energy if one else None for one in (first, second)]
    assert [energy and (energy.joules, energy.window_s, energy.idle_w) for energy in energies] == [
        (800, 4, None),
        (900, 3, None),
    ]
    kept = list(read_ticks(tmp_path / "repeat2_telemetry.jsonl"))
    assert [tick.t_ns for tick in kept] == [number * second_ns for number in range(4)]
