import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import InputError, RunError, SetupError
from benchmark.files import read_record, read_samples, read_ticks
from benchmark.node.engines import simulated
from benchmark.node.interfaces import Listener, Query
from benchmark.node.run import RunRequest, run
from benchmark.node.watch.telemetry import Watch
from benchmark.records import Environment, GpuProcess, GpuTelemetry, Metrics, NodeResult, Telemetry
from benchmark.resolve import resolve
from benchmark.rundir import GO, READY, RunOrder
from benchmark.settings import ResolvedSettings, Settings
from benchmark.text.node_result import render_node
from tests.unit.node.led import put


def resolved(profile: dict[str, Any] | None = None, **settings: Any) -> ResolvedSettings:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", **settings})
    return ResolvedSettings.model_validate(
        {"settings": base.settings, "profile": {**base.profile.model_dump(), **(profile or {})}}
    )


FAST = {"samples": 5, "engine_options": {"ttft_ms": 1, "tpot_ms": 0.1}}


def request(directory: Path, profile: dict[str, Any] | None = None) -> RunRequest:
    return RunRequest(run_id="r1", node="jw2", resolved=resolved({**FAST, **(profile or {})}), directory=directory)


def written(directory: Path) -> NodeResult:
    (path,) = directory.glob("mlperf_datacenter_jw2_*.json")
    return read_record(path, NodeResult)


def test_a_complete_run_leaves_result_text_and_samples(tmp_path: Path) -> None:
    result = run(request(tmp_path))
    assert written(tmp_path) == result
    assert result.status == "complete"
    assert result.stage == "done"
    assert result.verdict is not None
    assert result.verdict.valid
    assert result.metrics is not None
    assert result.metrics.queries.completed == 5
    assert set(result.stages_s) == {"environment", "loading", "warm-up", "measuring"}
    assert result.window is not None
    assert result.window.ended_unix_ns > result.window.started_unix_ns
    assert len(read_samples(tmp_path / "samples.jsonl")) == 5
    (text,) = tmp_path.glob("*.txt")
    assert "unverified, not an MLCommons submission" in text.read_text()


def test_the_warm_up_is_not_counted(tmp_path: Path) -> None:
    result = run(request(tmp_path, {"warmup": 3}))
    assert result.metrics is not None
    assert result.metrics.queries.planned == 5


def test_a_failed_query_for_accuracy_costs_no_measurement(tmp_path: Path) -> None:
    options = {"ttft_ms": 1, "tpot_ms": 0.1, "fail_indexes": [3]}
    judged = {"accuracy": "with-performance", "greedy_prompts": 4, "warmup": 0, "samples": 3}
    result = run(request(tmp_path, {**judged, "engine_options": options}))
    assert (result.status, result.stage) == ("complete", "done")
    assert result.metrics is not None
    assert result.metrics.queries.completed == 3
    assert result.accuracy is not None
    assert (len(result.accuracy.greedy), result.accuracy.errors) == (3, 1)
    assert result.verdict is not None
    assert result.verdict.reasons == (
        "1 query of the accuracy run failed: The simulated engine is set to fail this query.",
    )


def test_failed_queries_make_the_verdict_invalid(tmp_path: Path) -> None:
    result = run(request(tmp_path, {"warmup": 0, "engine_options": {"ttft_ms": 1, "fail_indexes": [2]}}))
    assert result.verdict is not None
    assert not result.verdict.valid
    assert result.verdict.reasons == (
        "failed queries 1 is above the allowed 0.",
        "1 of them: The simulated engine is set to fail this query.",
    )


def test_full_memory_is_told_of_however_few_queries_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As seen on a GPU: the others failed in cuDNN, which does not say why.
    def full(engine: simulated.Engine, query: Query, listener: Listener) -> None:
        said = "CUDA out of memory. Tried to allocate 20.00 MiB." if query.index == 2 else "is_good() is not true."
        listener.failed(query, f"RuntimeError: {said}")

    monkeypatch.setattr(simulated.Engine, "submit", full)
    result = run(request(tmp_path, {"warmup": 0}))
    assert result.verdict is not None
    (reported,) = (reason for reason in result.verdict.reasons if " of them: " in reason)
    assert reported.startswith("1 of them: The GPU's memory is full (CUDA out of memory. Tried to allocate 20.00 MiB).")


def test_a_failing_warm_up_breaks_the_run_and_the_result_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="The warm-up failed: The simulated engine is set"):
        run(request(tmp_path, {"engine_options": {"fail_indexes": [0]}}))
    result = written(tmp_path)
    assert (result.status, result.stage) == ("failed", "warm-up")


def test_a_run_that_cannot_judge_itself_says_why_it_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("benchmark.node.run.judge", full)
    with pytest.raises(RunError, match="The node's memory is full"):
        run(request(tmp_path))
    result = written(tmp_path)
    assert result.status == "failed"
    assert "The node's memory is full (MemoryError)" in str(result.error)


def test_unknown_engine_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ttft is not an option: did you mean ttft_ms"):
        run(request(tmp_path, {"engine_options": {"ttft": 1}}))


def test_a_directory_with_samples_of_an_earlier_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(RunError, match="File exists"):
        run(request(tmp_path))


def test_a_missing_model_is_a_setup_error(tmp_path: Path) -> None:
    model = {
        "profile": resolve({}).profile,
        "settings": Settings(benchmark_device="cpu", benchmark_model="/nowhere", benchmark_probes="off"),
    }
    with pytest.raises(SetupError, match=r"/nowhere holds no model: there is no config\.json"):
        run(RunRequest("r1", "jw2", ResolvedSettings.model_validate(model), tmp_path))
    assert written(tmp_path).status == "failed"


def start(directory: Path, profile: dict[str, Any], wait_s: int | None = None) -> subprocess.Popen[bytes]:
    order = RunOrder(run_id="r1", node="jw2", resolved=resolved(profile), wait_s=wait_s)
    (directory / "order.json").write_text(order.model_dump_json())
    command = [sys.executable, "-m", "benchmark", "run", "--order", str(directory / "order.json")]
    with (directory / "benchmark.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def synchronized(directory: Path, wait_s: int) -> subprocess.Popen[bytes]:
    """Start a run that waits to be told when to measure, and return once it is ready."""
    process = start(directory, FAST, wait_s)
    while not (directory / "ready").exists():
        assert process.poll() is None, (directory / "benchmark.log").read_text()
        time.sleep(0.01)
    return process


def test_a_run_that_waits_measures_at_the_time_that_it_is_told(tmp_path: Path) -> None:
    process = synchronized(tmp_path, 600)
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert progress["state"] == "ready, waiting for the others"
    assert Environment.model_validate_json((tmp_path / "ready").read_text()) == written(tmp_path).environment
    assert not (tmp_path / "samples.jsonl").exists()
    asked = time.time_ns() + 1_500_000_000
    put(tmp_path, GO, asked)
    assert process.wait(timeout=60) == 0
    result = written(tmp_path)
    assert result.window is not None
    assert result.window.asked_unix_ns == asked
    assert result.window.late_ms == (result.window.started_unix_ns - asked) / 1e6
    # Two clocks of one machine; ntp may slew one against the other by some parts in ten thousand.
    assert result.window.late_ms > -1
    assert set(result.stages_s) == {"environment", "loading", "warm-up", "ready", "measuring"}
    assert "ms after the agreed time" in render_node(result)
    # The controller writes that, not a node that was sent an order.
    assert not list(tmp_path.glob("*.txt"))


def test_before_the_start_no_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced_ns: list[int] = []
    sync = os.fsync

    def stamped(descriptor: int) -> None:
        synced_ns.append(time.time_ns())
        sync(descriptor)

    def tell() -> None:
        while not (tmp_path / READY).exists():
            time.sleep(0.01)
        heard_ns.append(time.time_ns())
        put(tmp_path, GO, time.time_ns() + 2 * 10**9)

    heard_ns: list[int] = []
    monkeypatch.setattr(os, "fsync", stamped)
    telling = threading.Thread(target=tell)
    telling.start()
    result = run(replace(request(tmp_path), wait_s=60))
    telling.join()
    assert result.window is not None
    assert synced_ns
    # The file that says that it is ready is renamed into place after it was synced.
    assert not [at for at in synced_ns if heard_ns[0] < at < result.window.started_unix_ns]


def test_a_run_that_hears_too_late_measures_at_once(tmp_path: Path) -> None:
    process = synchronized(tmp_path, 600)
    asked = time.time_ns() - 2_000_000_000
    put(tmp_path, GO, asked)
    assert process.wait(timeout=60) == 0
    window = written(tmp_path).window
    assert window is not None
    assert window.late_ms is not None
    assert window.late_ms > 1999


def test_a_run_that_is_never_told_gives_up_in_a_sentence(tmp_path: Path) -> None:
    process = synchronized(tmp_path, 1)
    assert process.wait(timeout=60) == 4
    result = written(tmp_path)
    assert (result.status, result.stage) == ("failed", "ready")
    assert result.error is not None
    assert result.error.startswith("Ready, but no start time came within 1 s: did the controller stop?")
    assert not (tmp_path / "samples.jsonl").exists()


def wait_for_samples(
    directory: Path, count: int, process: subprocess.Popen[bytes], name: str = "samples.jsonl"
) -> None:
    path = directory / name
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, (directory / "benchmark.log").read_text()
        time.sleep(0.01)


SLOW = {"samples": 1000, "engine_options": {"ttft_ms": 20, "tpot_ms": 1}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_is_interrupted_and_keeps_what_it_measured(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, SLOW)
    wait_for_samples(tmp_path, 3, process)
    process.send_signal(number)
    assert process.wait(timeout=30) == 4
    result = written(tmp_path)
    assert (result.status, result.stage) == ("interrupted", "measuring")
    assert result.error == f"The run was stopped by {number.name}."
    assert result.metrics is not None
    assert result.metrics.queries.completed >= 3
    assert result.metrics.queries.unfinished == 1000 - len(read_samples(tmp_path / "samples.jsonl"))
    assert result.verdict is not None
    assert not result.verdict.valid


def test_a_killed_run_loses_no_completed_sample(tmp_path: Path) -> None:
    process = start(tmp_path, SLOW)
    wait_for_samples(tmp_path, 3, process)
    process.kill()
    process.wait()
    assert written(tmp_path).status == "interrupted"
    samples = read_samples(tmp_path / "samples.jsonl")
    assert [s.index for s in samples] == list(range(len(samples)))
    assert len(samples) >= 3


def test_progress_is_a_whole_json_file_that_ends_with_the_status(tmp_path: Path) -> None:
    run(request(tmp_path))
    assert json.loads((tmp_path / "progress.json").read_text())["state"] == "complete"


def test_the_node_is_watched_while_it_measures(tmp_path: Path) -> None:
    result = run(request(tmp_path, {"samples": 40, "engine_options": {"ttft_ms": 20, "tpot_ms": 0.1}}))
    assert result.telemetry is not None
    assert result.telemetry.cpu_percent is not None
    assert (result.telemetry.gpus, result.telemetry.energy, result.telemetry.note) == ((), None, "")
    ticks = list(read_ticks(tmp_path / "telemetry.jsonl"))
    assert result.window is not None
    window_ns = result.window.ended_unix_ns - result.window.started_unix_ns
    assert sum(0 <= tick.t_ns <= window_ns for tick in ticks) == result.telemetry.ticks
    assert ticks[-1].t_ns >= window_ns, "one reading beyond the window's end"


def test_a_stopped_run_has_telemetry_and_leaves_no_process(tmp_path: Path) -> None:
    process = start(tmp_path, SLOW)
    wait_for_samples(tmp_path, 1, process)
    # Two ticks lie in the window, on a busy machine too.
    ticks = tmp_path / "telemetry.jsonl"
    before = ticks.read_bytes().count(b"\n") if ticks.exists() else 0
    wait_for_samples(tmp_path, before + 3, process, ticks.name)
    (watching,) = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 4
    assert written(tmp_path).telemetry is not None
    assert not Path(f"/proc/{watching}").exists()


def test_a_run_that_is_not_watched_has_no_telemetry(tmp_path: Path) -> None:
    settings = resolved(FAST, benchmark_telemetry=False)
    result = run(RunRequest(run_id="r1", node="jw2", resolved=settings, directory=tmp_path))
    assert result.telemetry is None
    assert not (tmp_path / "telemetry.jsonl").exists()


@pytest.mark.parametrize(("required", "valid"), [(True, False), (False, True)])
def test_a_number_beside_another_process_on_the_gpu_is_not_valid(
    required: bool, valid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    come = GpuProcess(pid=7, name="train.py", user="ann", memory_mib=16384)
    watched = Watch.telemetry

    def telemetry(self: Watch, metrics: Metrics | None) -> Telemetry | None:
        reported = watched(self, metrics)
        return reported and reported.model_copy(update={"gpus": (GpuTelemetry(index=0, foreign_processes=(come,)),)})

    monkeypatch.setattr(Watch, "telemetry", telemetry)
    long = {"samples": 20, "engine_options": {"ttft_ms": 100, "tpot_ms": 0.1}}  # than two ticks, also on a busy machine
    asked = resolved(long, benchmark_require_idle_gpus=required)
    result = run(replace(request(tmp_path), resolved=asked))
    assert result.verdict is not None
    assert result.verdict.valid == valid
    said = "GPU 0 was used by another process: train.py of ann, pid 7, 16384 MiB, which started while the node measured"
    assert any(reason.startswith(said) for reason in result.verdict.reasons) == required


def test_an_error_that_names_no_file_keeps_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_socket(self: simulated.Engine) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(simulated.Engine, "load", no_socket)
    with pytest.raises(RunError, match="Too many open files"):
        run(request(tmp_path))
    assert "in no_socket" in capfd.readouterr().err
    assert written(tmp_path).error == "OSError: [Errno 24] Too many open files"
