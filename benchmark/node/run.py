"""One run on one node: environment, loading, warm-up, measuring, verdict; it always leaves a result file."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import JsonValue

from benchmark.errors import BenchmarkError, RunError, SetupError
from benchmark.files import write_atomic
from benchmark.importing import not_loading
from benchmark.node.accuracy import has_references, require_scoring
from benchmark.node.interfaces import Demands, Engine, Workload
from benchmark.node.loading import demands_of, load_engine
from benchmark.node.machine import CPU, Claim, claim_machine, who_measures
from benchmark.node.measurements import Measurements
from benchmark.node.measuring import Bench, error_of, judge_answers, run_audit, unanswered_words
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.tokenizer import load_tokenizer
from benchmark.node.open_result import OpenResult
from benchmark.node.peak import FIRST_GUESS, PeakFinder
from benchmark.node.probes.hardware import BESIDE_A_SERVER, probe_hardware, probed_directory, serves_already
from benchmark.node.registry import load_dataset, make_scenario
from benchmark.node.request import RunRequest
from benchmark.node.watch.environment import foreign_processes, require_idle, validate_environment
from benchmark.node.watch.full_memory import explain, is_full
from benchmark.node.watch.telemetry import NoWatch, Watch, start_watch
from benchmark.profiles import NONE, SIMULATED
from benchmark.records import (
    DatasetInfo,
    Environment,
    Metrics,
    NodeResult,
    Repeat,
    Status,
    Telemetry,
    Verdict,
)
from benchmark.rundir import STOPPED
from benchmark.text.node_result import render_node
from benchmark.unwritable import remedy
from benchmark.verdict import Findings, judge
from benchmark.words import during, of_them

__all__ = ["RunRequest", "run"]

# Reserves disk space during the run, so that a run that fills the disk can still write its result.
ROOM = "room.tmp"
ROOM_BYTES = 256 * 2**10


class Interrupted(BaseException):
    """SIGINT or SIGTERM; a BaseException like KeyboardInterrupt, so that no library's `except Exception` catches it."""


def run(request: RunRequest) -> NodeResult:
    """Measure this node and return its result, which has been written to disk.

    The result file is first written as `interrupted` and updated during the run, so that even a killed process leaves
    one beside its samples. Raises BenchmarkError, after writing the reason.
    """
    return NodeRun(request).run()


class NodeRun:
    """One run, from its beginning to its result."""

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.profile = request.resolved.profile
        self.open = OpenResult(request)
        self.measurements = Measurements(request, self.open)
        self.watch: Watch | NoWatch = NoWatch()
        self.claimed: int | None = None

    def run(self) -> NodeResult:
        """Return the result, once it is on disk. Raises BenchmarkError, after writing the reason."""
        try:
            return self._run()
        finally:
            if self.claimed is not None:
                os.close(self.claimed)

    def _run(self) -> NodeResult:
        try:
            with _signals_raise():
                self._stages()
            self._finish("complete", None)
        except Interrupted as stop:
            self._finish("interrupted", f"{STOPPED} {stop}.")
        except BenchmarkError as error:
            reported = self._explain(str(error))
            self._finish("failed", reported)
            if reported != str(error):
                raise RunError(reported) from error
            raise
        except OSError as error:
            reported = self._explain(not_loading(error) or self._about(error))
            self._finish("failed", reported)
            raise RunError(reported) from error
        except Exception as error:
            traceback.print_exc()
            unloaded = not_loading(error)
            self._finish("failed", self._explain(unloaded or f"{type(error).__name__}: {error}"))
            if unloaded:
                raise SetupError(self.open.result.error) from error
            raise RunError(f"The run failed {during(self.open.result.stage)}: {self.open.result.error}") from error
        return self.open.result

    def _explain(self, text: str) -> str:
        # No message is known to contain a secret; if one ever does, it is masked here.
        return explain(self.request.secrets.mask(text), self.request.resolved.settings, self.profile.engine)

    def _about(self, error: OSError) -> str:
        """Return one sentence for an operating system error; if it is not informative, print a traceback to the log."""
        todo = remedy(error.errno, "benchmark_work_dir")
        if error.filename is None and not todo:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        where = Path(error.filename or self.request.directory).absolute()
        return f"{error.strerror or error}: {where}. {todo}".rstrip()

    def _examine(self) -> Environment:
        """Claim the node for this run and return its environment. Raises SetupError if it is not fit."""
        settings, profile = self.request.settings, self.profile
        with self.open.stage("environment"):
            (self.request.directory / ROOM).write_bytes(b"\0" * ROOM_BYTES)
            # If the run needs no model, nothing is recorded about one.
            environment = validate_environment(settings, profile.engine if profile.needs_model else NONE)
            variables = tuple(sorted(self.request.secrets.environment))
            environment = environment.model_copy(update={"variables": variables, "code": self.request.code})
            self.open.update(environment=environment)
            if self.request.owner:
                self._claim(environment)
            require_idle(settings, profile.engine, environment)
        return environment

    def _meet(self) -> None:
        """Wait for the servers to measure, if they are not the node's own."""

    def _end(self) -> None:
        """Announce that the engine gets no more queries, if other nodes compute for it, so that it can end."""

    def _details(self) -> dict[str, JsonValue]:
        """Return further details about the engine."""
        return {}

    def _stages(self) -> None:
        profile = self.profile
        environment, settings = self._examine(), self.request.settings
        if not profile.loads_model:
            self._probe(environment)
            return
        with self.open.stage("environment"):
            dataset = load_dataset(profile.dataset, settings, dict(profile.dataset_options))
            info = DatasetInfo(name=dataset.name, prompts=len(dataset.prompts), sha256=dataset.sha256)
            self.open.update(dataset=info)
            scenario = make_scenario(profile.scenario, dict(profile.scenario_options))
            scored = profile.accuracy != "off" and has_references(dataset)
            if scored:
                # Now, not after an hour of measuring.
                require_scoring()
                load_tokenizer(find_snapshot(settings))
            converse = any(prompt.follows is not None for prompt in dataset.prompts)
            demands = demands_of(profile, dataset, scored or bool(settings.benchmark_audit) or converse)
        # After the checks of this node: the servers take minutes to load.
        self._meet()
        settings = self.request.settings
        # With an engine that only waits, the hardware does not matter.
        if settings.benchmark_probes == "on" and profile.engine != SIMULATED:
            self._probe(environment)
        workload = Workload(dataset.prompts, profile.samples, profile.generation.seed)
        with ExitStack() as stack:
            if settings.benchmark_telemetry and profile.accuracy != "only":
                self.watch = start_watch(self.request.directory, environment)
                stack.callback(self.watch.close)
            with self.open.stage("loading"):
                engine, loaded = load_engine(profile, settings, partial(self._equip, demands), stack)
                loaded = loaded.model_copy(update={"details": {**loaded.details, **self._details()}})
                self.open.update(engine=loaded)
            bench = Bench(
                engine,
                scenario,
                workload,
                profile,
                self.request.directory,
                self.open.progress,
                settings.benchmark_mlperf_round,
                replicas=1 if engine.together else loaded.replicas,
                servers=self.request.servers,
            )
            with self.open.stage("warm-up", profile.warmup):
                self._warm_up(bench)
            bench = replace(bench, expected_ms=self.open.result.warmup_ms)
            if profile.accuracy != "only":
                self.open.update(target_qps=self._target(bench))
                self.measurements.run(bench, self.watch)
            if profile.accuracy != "off":
                with self.open.stage("accuracy", len(dataset.prompts) if has_references(dataset) else 0):
                    accuracy = judge_answers(bench, dataset, self._rate(bench), settings)
                    error = self._explain(accuracy.error)[:1000]
                    self.open.update(accuracy=accuracy.model_copy(update={"error": error}))
            if settings.benchmark_audit:
                with self.open.stage("audit"):
                    self.open.update(audit=run_audit(bench, self._rate(bench), settings))
            self._end()

    def _probe(self, seen: Environment) -> None:
        """Measure the hardware, before an engine takes the GPUs' memory."""
        with self.open.stage("probes"):
            settings, profile = self.request.settings, self.profile
            directory, busy = probed_directory(settings, profile), serves_already(settings, profile)
            probes = probe_hardware(directory, 0 if busy else len(seen.gpus))
            notes = (BESIDE_A_SERVER,) if busy and seen.gpus else ()
            self.open.update(probes=probes.model_copy(update={"notes": (*notes, *probes.notes)}))

    def _equip(self, demands: Demands, engine: Engine) -> None:
        engine.directory, engine.secrets, engine.demands = self.request.directory, self.request.secrets, demands

    def _claim(self, seen: Environment) -> None:
        """Keep other runs from measuring here at the same time, or wait for them to end."""
        settings = self.request.settings
        uses = tuple(gpu.uuid or f"index-{gpu.index}" for gpu in seen.gpus) or (CPU,)
        words = who_measures(self.request.run_id, self.request.owner)
        self.claimed = claim_machine(
            Claim(uses, settings.benchmark_shared_machine, words),
            settings.benchmark_sync_timeout_s if settings.benchmark_busy == "wait" else 0,
            waiting=lambda other: self.open.progress.stage(f"waiting: {other}"),
        )
        self.open.progress.stage("environment")

    def _warm_up(self, bench: Bench) -> None:
        samples = bench.in_turn([bench.workload.query(index) for index in range(self.profile.warmup)], shown=True)
        if failed := [sample for sample in samples if sample.error]:
            raise RunError(f"The warm-up failed: {error_of(failed[0], bench.servers)}")
        taken_ms = sorted((s.completed_ns - s.issued_ns) / 1e6 for s in samples if s.completed_ns is not None)
        # The lower of two middle values: the first queries may be slow for reasons that do not recur.
        median_ms = taken_ms[(len(taken_ms) - 1) // 2] if taken_ms else None
        self.open.set(warmup=self.profile.warmup, warmup_ms=median_ms)

    def _target(self, bench: Bench) -> float:
        """Return the whole node's target in queries per second; search for it if the settings say so."""
        asked, replicas = self.request.resolved.settings.benchmark_target_qps, self.open.replicas
        if asked != "auto":
            return float(asked) * replicas
        with self.open.stage("searching"):
            peak = PeakFinder(bench).find(replicas)
            self.open.update(peak=peak)
        if peak.target_qps is None:
            raise RunError(
                f"No valid target was found: the lowest rate tried, {peak.probes[-1].target_qps:g} queries/s, is too "
                f"high ({' '.join(peak.probes[-1].reasons) or 'no reason was given'})."
            )
        return peak.target_qps

    def _rate(self, bench: Bench) -> float:
        """Return the node's target in queries per second, even if nothing is measured.

        If it would be searched for, return the start of the search: answers do not depend on the rate.
        """
        asked = self.request.resolved.settings.benchmark_target_qps
        if self.open.result.target_qps is not None:
            return self.open.result.target_qps
        if asked != "auto":
            return float(asked) * self.open.replicas
        return PeakFinder(bench).burst() * FIRST_GUESS

    def _finish(self, status: Any, error: str | None) -> None:
        fields: dict[str, Any] = {"status": status, "error": error[:4000] if error else None}
        if status == "complete":
            fields["stage"] = "done"
        fields["finished_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        result, alone = self.open.result, not self.profile.loads_model
        judged = (self.measurements.first and self.measurements.first.recorder) or result.accuracy or result.audit
        if judged or (alone and result.probes):
            with _not_in_the_way_of(status):
                fields |= self._judged(status)
        try:
            (self.request.directory / ROOM).unlink(missing_ok=True)
            self.open.update(**fields)
            if self.request.text:
                with _not_in_the_way_of(status):
                    write_atomic(self.open.path.with_suffix(".txt"), render_node(self.open.result))
            self.open.progress.finish(status)
        except OSError as full:
            todo = remedy(full.errno, "benchmark_work_dir")
            raise RunError(
                f"The result cannot be written to {self.open.path}: {full.strerror}. {todo}".rstrip()
            ) from full

    def _judged(self, status: Status) -> dict[str, Any]:
        measured = self.measurements.first.metrics() if self.measurements.first else None
        watched = self.watch.telemetry(measured)
        return {
            "metrics": measured,
            "telemetry": watched,
            "verdict": self._verdict(self.open.result, measured, watched, status),
            "repeats": [
                {**dict(repeat), "verdict": self._verdict(repeat, repeat.metrics, repeat.telemetry, status)}
                for repeat in self.open.result.repeats
            ],
        }

    def _failures(self, measured: Metrics | None) -> str:
        """Return the most frequent errors of the first repeat's failed queries; later samples are not kept.

        Full memory comes first: it also causes the other errors, whose messages do not always say so.
        """
        recorder = self.measurements.first.recorder if self.measurements.first else None
        if recorder is None or measured is None or not measured.queries.failed:
            return ""
        errors = Counter(sample.error for sample in recorder.samples if sample.error)
        error, times = max(errors.items(), key=lambda item: (is_full(item[0]), item[1]), default=("", 0))
        reported = of_them(times, measured.queries.failed).capitalize()
        return f"{reported}: {self._explain(error)[:1000]}" if times else ""

    def _unanswered(self) -> str:
        recorder = self.measurements.last.recorder if self.measurements.last else None
        names = [server.node for server in self.request.servers] or self.request.settings.benchmark_endpoint_urls
        return unanswered_words(recorder, names) if recorder else ""

    def _verdict(
        self, one: NodeResult | Repeat, measured: Metrics | None, watched: Telemetry | None, status: Status
    ) -> Verdict:
        prompts = self.open.result.dataset.prompts if self.open.result.dataset else None
        others = foreign_processes(self.request.resolved.settings, self.profile.engine, watched)
        found = Findings(
            measured,
            one.loadgen,
            self.open.result.accuracy,
            prompts,
            self._failures(measured),
            others,
            one.serving,
            self.open.result.audit,
            self.open.result.probes,
            self._unanswered(),
        )
        floors = self.request.resolved.settings.benchmark_probe_floors
        return judge(self.profile, found, self.open.result.target_qps or 0, status, floors)


@contextmanager
def _not_in_the_way_of(status: Status) -> Iterator[None]:
    """Print exceptions in the block, unless the run is complete.

    What broke the run (full memory, for example) may break this too, and must still be reported.
    """
    try:
        yield
    except Exception:
        if status == "complete":
            raise
        traceback.print_exc()


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread; ignored ones stay so."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.signal(n, stop) for n in signals if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
