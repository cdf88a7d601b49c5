"""One run on one node: environment, loading, warm-up, measuring, verdict; a result file whatever happens."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from benchmark import metrics
from benchmark.errors import BenchmarkError, RunError
from benchmark.files import sample_writer, write_atomic, write_record
from benchmark.node.environment import validate_environment
from benchmark.node.interfaces import Engine, Prompt, Query, load_dataset, make_engine, make_scenario, now_ns
from benchmark.node.progress import Progress
from benchmark.node.recorder import Recorder
from benchmark.records import DatasetInfo, NodeResult, Sample, Stage, Window
from benchmark.settings import ResolvedSettings
from benchmark.text import render_node
from benchmark.verdict import judge

SAMPLES = "samples.jsonl"


class Interrupted(BaseException):
    """SIGINT or SIGTERM; like KeyboardInterrupt, no `except Exception` of a library may swallow it."""


@dataclass(frozen=True)
class RunRequest:
    """What to run and where to put it. `directory` must not hold an earlier run."""

    run_id: str
    node: str
    resolved: ResolvedSettings
    directory: Path


def run(request: RunRequest) -> NodeResult:
    """Measure this node and return its result, which is on the disk by then.

    The result file is written at once as `interrupted` and replaced as the run goes on, so that even a killed process
    leaves one beside its samples. Raises BenchmarkError, after having written why.
    """
    return _Run(request).run()


class _Run:
    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.profile = request.resolved.profile
        self.progress = Progress(request.node, request.directory)
        started = datetime.now(timezone.utc)
        self.path = request.directory / f"mlperf_datacenter_{request.node}_{started:%Y%m%dT%H%M%SZ}.json"
        self.result = NodeResult(
            run_id=request.run_id,
            node=request.node,
            status="interrupted",
            stage="environment",
            started_at=started.isoformat(timespec="seconds"),
            resolved=request.resolved,
        )
        self.recorder: Recorder | None = None
        self.window_ns: tuple[int, int] | None = None

    def run(self) -> NodeResult:
        try:
            with _signals_raise():
                self._stages()
            self._finish("complete", None)
        except Interrupted as stop:
            self._finish("interrupted", f"The run was stopped by {stop}.")
        except BenchmarkError as error:
            self._finish("failed", str(error))
            raise
        except OSError as error:
            self._finish("failed", f"{error.strerror or error}: {error.filename or self.request.directory}.")
            raise RunError(str(self.result.error)) from error
        except Exception as error:
            traceback.print_exc()
            self._finish("failed", f"{type(error).__name__}: {error}")
            raise RunError(f"The run broke while {self.result.stage}: {self.result.error}") from error
        return self.result

    def _stages(self) -> None:
        settings = self.request.resolved.settings
        with self._stage("environment"):
            self._update(environment=validate_environment(settings.benchmark_device))
            dataset = load_dataset(self.profile.dataset)
            info = DatasetInfo(name=dataset.name, prompts=len(dataset.prompts), sha256=dataset.sha256)
            self._update(dataset=info)
        with ExitStack() as stack:
            with self._stage("loading"):
                engine = make_engine(
                    self.profile.engine, settings, self.profile.generation, dict(self.profile.engine_options)
                )
                stack.callback(engine.close)
                self._update(engine=engine.load())
            with self._stage("warm-up", self.profile.warmup):
                self._warm_up(engine, dataset.prompts)
            with self._stage("measuring", self.profile.samples):
                self._measure(engine, dataset.prompts)

    def _warm_up(self, engine: Engine, prompts: tuple[Prompt, ...]) -> None:
        recorder = Recorder(engine, None, now_ns(), self._tell)
        make_scenario("closed_loop").run(self._queries(prompts, self.profile.warmup), recorder)
        if errors := [sample.error for sample in recorder.samples if sample.error]:
            raise RunError(f"The warm-up failed: {errors[0]}")

    def _measure(self, engine: Engine, prompts: tuple[Prompt, ...]) -> None:
        queries = self._queries(prompts, self.profile.samples)
        with sample_writer(self.request.directory / SAMPLES) as writer:
            started_unix_ns, started_ns = time.time_ns(), now_ns()
            self.window_ns = started_unix_ns, started_ns
            self._update(window=Window(started_unix_ns=started_unix_ns, ended_unix_ns=started_unix_ns))
            self.recorder = Recorder(engine, writer, started_ns, self._tell)
            try:
                make_scenario(self.profile.scenario).run(queries, self.recorder)
            finally:
                self._close_window()

    def _close_window(self) -> None:
        if self.window_ns is not None:
            started_unix_ns, started_ns = self.window_ns
            ended = started_unix_ns + now_ns() - started_ns
            self._set(window=Window(started_unix_ns=started_unix_ns, ended_unix_ns=ended))

    def _queries(self, prompts: tuple[Prompt, ...], count: int) -> list[Query]:
        seed = self.profile.generation.seed
        return [Query(index=i, prompt=prompts[i % len(prompts)], seed=seed + i) for i in range(count)]

    def _tell(self, sample: Sample, done: int) -> None:
        taken_ms = None if sample.completed_ns is None else (sample.completed_ns - sample.scheduled_ns) / 1e6
        self.progress.advance(done, taken_ms)

    @contextmanager
    def _stage(self, stage: Stage, total: int = 0) -> Iterator[None]:
        self._update(stage=stage)
        self.progress.stage(stage, total)
        began = time.monotonic()
        try:
            yield
        finally:
            taken = round(time.monotonic() - began, 3)
            self._set(stages_s={**self.result.stages_s, stage: taken})

    def _set(self, **fields: Any) -> None:
        # Through validation, unlike model_copy: what is written is what a reader will accept.
        self.result = NodeResult.model_validate({**dict(self.result), **fields})

    def _update(self, **fields: Any) -> None:
        self._set(**fields)
        write_record(self.path, self.result)

    def _finish(self, status: Any, error: str | None) -> None:
        fields: dict[str, Any] = {"status": status, "error": error[:4000] if error else None}
        if status == "complete":
            fields["stage"] = "done"
        fields["finished_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if self.recorder is not None and self.result.engine is not None:
            measured = metrics.compute(self.recorder.samples, self.profile.samples)
            target = self.request.resolved.settings.benchmark_target_qps * self.result.engine.replicas
            fields |= {"metrics": measured, "verdict": judge(self.profile, measured, target, status)}
        try:
            self._update(**fields)
            write_atomic(self.path.with_suffix(".txt"), render_node(self.result))
            self.progress.finish(status)
        except OSError as full:
            raise RunError(f"The result cannot be written to {self.path}: {full.strerror}.") from full


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread; what nohup ignores stays ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, stop) for n in signals if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
