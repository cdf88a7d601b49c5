"""One run on one node: environment, loading, warm-up, measuring, verdict; a result file whatever happens."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import JsonValue

from benchmark.combinations import CLOSED_LOOP, SIMULATED
from benchmark.errors import BenchmarkError, RunError
from benchmark.files import write_atomic, write_record
from benchmark.ladder import Step, loads_of, why_end
from benchmark.loadgen_log import SOLO
from benchmark.node.accuracy import has_references, require_scoring
from benchmark.node.interfaces import Demands, Engine, Workload
from benchmark.node.loading import demands_of, load_engine
from benchmark.node.lock import ALONE, STARTING, Lock
from benchmark.node.machine import CPU, Claim, claim_machine, who_measures
from benchmark.node.measuring import Bench, Pass, judge_answers, run_audit
from benchmark.node.model.load import find_snapshot
from benchmark.node.model.tokenizer import load_tokenizer
from benchmark.node.peak import FIRST_GUESS, PeakFinder
from benchmark.node.probes.hardware import BESIDE_A_SERVER, probe_hardware, probed_directory, serves_already
from benchmark.node.progress import ProgressWriter
from benchmark.node.registry import load_dataset, make_scenario
from benchmark.node.together import Start, end_starts, end_turn, wait_for_start, wait_for_turn
from benchmark.node.watch.environment import foreign_processes, require_idle, validate_environment
from benchmark.node.watch.full_memory import explain, is_full
from benchmark.node.watch.telemetry import NoWatch, Watch, start_watch
from benchmark.records import (
    Code,
    DatasetInfo,
    Environment,
    Load,
    Metrics,
    NodeResult,
    Repeat,
    Server,
    ServerPlace,
    Solo,
    Stage,
    Status,
    Telemetry,
    Verdict,
)
from benchmark.rundir import READY, STOPPED, of_repeat
from benchmark.secret_settings import Secrets
from benchmark.settings import ResolvedSettings, Settings
from benchmark.text import render_node
from benchmark.unwritable import remedy
from benchmark.verdict import Findings, judge
from benchmark.words import during

# Held while the run goes on, so that on a disk that it fills there is room to say so.
ROOM = "room.tmp"
ROOM_BYTES = 256 * 2**10
# Seconds for which an idle GPU's power is measured where nothing else is waited for.
IDLE_S = 1.0


class Interrupted(BaseException):
    """SIGINT or SIGTERM; like KeyboardInterrupt, no `except Exception` of a library may swallow it."""


@dataclass(frozen=True)
class RunRequest:
    """What to run and where to put it. `directory` must not hold an earlier run.

    With `wait_s` the node waits for the agreed start, that many seconds at most; with `solo` it measures alone first,
    when it is its turn. `starting_lock`: a descriptor under which starting.lock is locked already.
    `text`: whether the result is written as text too; the controller writes that of its nodes.
    """

    run_id: str
    node: str
    resolved: ResolvedSettings
    directory: Path
    wait_s: int | None = None
    attempt: int = 1
    solo: bool = False
    starting_lock: int | None = None
    text: bool = True
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    code: Code | None = None
    """Which code this is."""
    owner: str = ""
    """Whose run it is, in words. With it no other run of this project measures here at the same time."""
    first_step: int = 1
    """Of a sweep: those before it were measured in earlier attempts."""
    serves: ServerPlace | None = None
    """Where it serves, for a driver to measure."""
    drives: tuple[ServerPlace, ...] = ()
    """Which servers it measures; empty: the node itself."""
    servers: tuple[Server, ...] = ()
    """Those of them that serve, once that is known."""
    limit_s: int | None = None
    """When it is stopped, in seconds after its start."""
    engine_dir: Path | None = None
    """Where the environment of the provisioned engine is that is wanted; None: where the settings say, or none is."""

    @property
    def settings(self) -> Settings:
        """The settings as they are to be acted on."""
        changes: dict[str, Any] = {}
        if self.engine_dir is not None:
            changes[f"{self.resolved.profile.engine}_dir"] = str(self.engine_dir)
        if self.serves is not None:
            changes["benchmark_endpoint_urls"] = [self.serves.url]
        if self.servers:
            changes["benchmark_endpoint_urls"] = [server.url for server in self.servers]
            changes["benchmark_replicas"] = sum(server.replicas for server in self.servers)
        return self.resolved.settings.model_copy(update=changes)


def run(request: RunRequest) -> NodeResult:
    """Measure this node and return its result, which is on the disk by then.

    The result file is written at once as `interrupted` and replaced as the run goes on, so that even a killed process
    leaves one beside its samples. Raises BenchmarkError, after having written why.
    """
    return NodeRun(request).run()


class NodeRun:
    """One run from its beginning to its result."""

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.profile = request.resolved.profile
        self.progress = ProgressWriter(request.node, request.directory)
        self.measurements = request.resolved.measurements - request.first_step + 1
        # Of each repeat: it is held until the node is ready for that.
        self.starting = [] if request.wait_s is None else [*self._locks()]
        self.turn = Lock(request.directory / ALONE) if request.solo else None
        started = datetime.now(timezone.utc)
        self.path = request.directory / f"mlperf_datacenter_{request.node}_{started:%Y%m%dT%H%M%SZ}.json"
        self.result = NodeResult(
            run_id=request.run_id,
            node=request.node,
            attempt=request.attempt,
            status="interrupted",
            stage="environment",
            started_at=started.isoformat(timespec="seconds"),
            resolved=request.resolved,
        )
        self.watch: Watch | NoWatch = NoWatch()
        self.measured: Pass | None = None
        self.claimed: int | None = None

    def run(self) -> NodeResult:
        """Return the result once it is on the disk. Raises BenchmarkError, after having written why."""
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
            reported = self._explain(self._about(error))
            self._finish("failed", reported)
            raise RunError(reported) from error
        except Exception as error:
            traceback.print_exc()
            self._finish("failed", self._explain(f"{type(error).__name__}: {error}"))
            raise RunError(f"The run broke {during(self.result.stage)}: {self.result.error}") from error
        return self.result

    def _explain(self, text: str) -> str:
        # Nothing is known to say a secret; should a message ever hold one, it ends here.
        return explain(self.request.secrets.mask(text), self.request.resolved.settings, self.profile.engine)

    def _about(self, error: OSError) -> str:
        """Return one sentence for what the operating system refused; what its words do not say, the log has to."""
        todo = remedy(error.errno, "benchmark_work_dir")
        if error.filename is None and not todo:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        where = Path(error.filename or self.request.directory).absolute()
        return f"{error.strerror or error}: {where}. {todo}".rstrip()

    def _examine(self) -> Environment:
        """Return what the node is, once it is this run's alone. Raises SetupError where it is not fit."""
        settings, profile = self.request.settings, self.profile
        with self._stage("environment"):
            (self.request.directory / ROOM).write_bytes(b"\0" * ROOM_BYTES)
            environment = validate_environment(settings, profile.engine)
            variables = tuple(sorted(self.request.secrets.environment))
            environment = environment.model_copy(update={"variables": variables, "code": self.request.code})
            self._update(environment=environment)
            if self.request.owner:
                self._claim(environment)
            require_idle(settings, profile.engine, environment)
        return environment

    def _meet(self) -> None:
        """Wait for the servers that are measured, where these are not the node's own."""

    def _details(self) -> dict[str, JsonValue]:
        """Return what else is to be said of the engine."""
        return {}

    def _stages(self) -> None:
        profile = self.profile
        environment, settings = self._examine(), self.request.settings
        if not profile.loads_model:
            self._probe(environment)
            return
        with self._stage("environment"):
            dataset = load_dataset(profile.dataset, settings, dict(profile.dataset_options))
            info = DatasetInfo(name=dataset.name, prompts=len(dataset.prompts), sha256=dataset.sha256)
            self._update(dataset=info)
            scenario = make_scenario(profile.scenario, dict(profile.scenario_options))
            scored = profile.accuracy != "off" and has_references(dataset)
            if scored:
                # Now, and not after an hour of measuring.
                require_scoring()
                load_tokenizer(find_snapshot(settings))
            converse = any(prompt.follows is not None for prompt in dataset.prompts)
            demands = demands_of(profile, dataset, scored or bool(settings.benchmark_audit) or converse)
        # Now, since what is missing here is known: the servers load for minutes.
        self._meet()
        settings = self.request.settings
        # An engine that only waits says nothing of the hardware either.
        if settings.benchmark_probes == "on" and profile.engine != SIMULATED:
            self._probe(environment)
        workload = Workload(dataset.prompts, profile.samples, profile.generation.seed)
        with ExitStack() as stack:
            if settings.benchmark_telemetry and profile.accuracy != "only":
                self.watch = start_watch(self.request.directory, environment)
                stack.callback(self.watch.close)
            with self._stage("loading"):
                engine, loaded = load_engine(profile, settings, partial(self._equip, demands), stack)
                loaded = loaded.model_copy(update={"details": {**loaded.details, **self._details()}})
                self._update(engine=loaded)
            bench = Bench(
                engine,
                scenario,
                workload,
                profile,
                self.request.directory,
                self.progress,
                settings.benchmark_mlperf_round,
                replicas=loaded.replicas,
            )
            with self._stage("warm-up", profile.warmup):
                self._warm_up(bench)
            bench = replace(bench, expected_ms=self.result.warmup_ms)
            if profile.accuracy != "only":
                self._update(target_qps=self._target(bench))
                if self.starting and self.turn is not None:
                    self._measure_alone(bench, self.starting[0], self.turn)
                self._measure_all(bench, self._loads(bench))
            if profile.accuracy != "off":
                with self._stage("accuracy", len(dataset.prompts) if has_references(dataset) else 0):
                    self._update(accuracy=judge_answers(bench, dataset, self._rate(bench), settings))
            if settings.benchmark_audit:
                with self._stage("audit"):
                    self._update(audit=run_audit(bench, self._rate(bench), settings))

    def _probe(self, seen: Environment) -> None:
        """Measure the hardware, before an engine takes the GPUs' memory."""
        with self._stage("probes"):
            settings, profile = self.request.settings, self.profile
            directory, busy = probed_directory(settings, profile), serves_already(settings, profile)
            probes = probe_hardware(directory, 0 if busy else len(seen.gpus))
            notes = (BESIDE_A_SERVER,) if busy and seen.gpus else ()
            self._update(probes=probes.model_copy(update={"notes": (*notes, *probes.notes)}))

    def _equip(self, demands: Demands, engine: Engine) -> None:
        engine.directory, engine.secrets, engine.demands = self.request.directory, self.request.secrets, demands

    def _claim(self, seen: Environment) -> None:
        """Keep others from measuring here at the same time, or wait for their end."""
        settings = self.request.settings
        uses = tuple(gpu.uuid or f"index-{gpu.index}" for gpu in seen.gpus) or (CPU,)
        words = who_measures(self.request.run_id, self.request.owner)
        self.claimed = claim_machine(
            Claim(uses, settings.benchmark_shared_machine, words),
            settings.benchmark_sync_timeout_s if settings.benchmark_busy == "wait" else 0,
            waiting=lambda other: self.progress.stage(f"waiting: {other}"),
        )
        self.progress.stage("environment")

    def _warm_up(self, bench: Bench) -> None:
        samples = bench.in_turn([bench.workload.query(index) for index in range(self.profile.warmup)], shown=True)
        if errors := [sample.error for sample in samples if sample.error]:
            raise RunError(f"The warm-up failed: {errors[0]}")
        taken_ms = sorted((s.completed_ns - s.issued_ns) / 1e6 for s in samples if s.completed_ns is not None)
        # The lower of two middle ones: the first queries may be slow for reasons that do not come again.
        median_ms = taken_ms[(len(taken_ms) - 1) // 2] if taken_ms else None
        self._set(warmup=self.profile.warmup, warmup_ms=median_ms)

    def _target(self, bench: Bench) -> float:
        """Return the whole node's target in queries per second; search for it where it is to be found."""
        asked, replicas = self.request.resolved.settings.benchmark_target_qps, self._replicas
        if asked != "auto":
            return float(asked) * replicas
        with self._stage("searching"):
            peak = PeakFinder(bench).find(replicas)
            self._update(peak=peak)
        if peak.target_qps is None:
            raise RunError(
                f"No valid target was found: the lowest that was tried, {peak.probes[-1].target_qps:g} queries/s, is "
                f"too much ({' '.join(peak.probes[-1].reasons) or 'no reason was given'})."
            )
        return peak.target_qps

    def _rate(self, bench: Bench) -> float:
        """Return the node's target in queries per second also where nothing is measured.

        Where it would be searched for, it is what the search would begin with: answers do not depend on it.
        """
        asked = self.request.resolved.settings.benchmark_target_qps
        if self.result.target_qps is not None:
            return self.result.target_qps
        if asked != "auto":
            return float(asked) * self._replicas
        return PeakFinder(bench).burst() * FIRST_GUESS

    @property
    def _replicas(self) -> int:
        return self.result.engine.replicas if self.result.engine else 1

    def _measure_alone(self, bench: Bench, starting: Lock, turn: Lock) -> None:
        alone = Pass(bench, self.result.target_qps or 0, prefix=SOLO)
        alone.prepare()
        with self._stage("ready", reported="ready, waiting for its turn alone"):
            wait_for_turn(bench.directory, self.request.wait_s or 0, self.result.environment, starting)
        with self._stage("measuring alone", self.profile.samples or 0):
            alone.run()
            self._update(solo=Solo(window=alone.window, metrics=alone.metrics(), loadgen=alone.loadgen))
            end_turn(bench.directory, turn)

    def _locks(self) -> Iterator[Lock]:
        directory = self.request.directory
        yield Lock(directory / STARTING, self.request.starting_lock)
        for number in range(2, self.measurements + 1):
            yield Lock(directory / f"{of_repeat(READY, number)}.lock")

    def _begin(self, measured: Pass, number: int) -> Start | None:
        """Watch the node idle, and return the agreed start of a repeat once it has come; None: begin at once."""
        measured.prepare()
        if measured.watch.gpus:  # of a host there is nothing to learn while it waits
            measured.watch.idle()
        if self.request.wait_s is None:
            if measured.watch.gpus:
                time.sleep(IDLE_S)
            return None
        with self._stage("ready", reported="ready, waiting for the others"):
            request, environment, lock = self.request, self.result.environment, self.starting[number - 1]
            return wait_for_start(request.directory, request.wait_s or 0, environment, lock, number)

    def _measuring(self, number: int) -> AbstractContextManager[None]:
        what, before = ("step", self.request.first_step - 1) if self.profile.sweep else ("repeat", 0)
        of = before + self.measurements
        which = f", {what} {before + number} of {of}" if of > 1 else ""
        return self._stage("measuring", self.profile.samples or 0, reported=f"measuring{which}")

    def _loads(self, bench: Bench) -> list[Load | None]:
        """Return what each measurement asks of the system; None: what the profile's scenario says."""
        sweep = self.profile.sweep
        if sweep is None:
            options = self.profile.scenario_options
            fixed = Load(concurrency=options.get("concurrency", 1)) if self.profile.scenario == CLOSED_LOOP else None
            return [fixed] * self.measurements
        burst = 0.0
        if sweep.rate:
            with self._stage("searching"):
                burst = PeakFinder(bench).burst()
        return [*loads_of(sweep, burst)[self.request.first_step - 1 :]]

    def _measure_all(self, bench: Bench, loads: Sequence[Load | None]) -> None:
        """Measure the profile as often as is asked, or under one load after the other until the ladder ends."""
        target, sweep = self.result.target_qps or 0, self.profile.sweep
        measured = self.measured = Pass(bench, target, load=loads[0], watch=self.watch)
        start = self._begin(measured, 1)
        with self._measuring(1):
            self._measure(measured, start)
        self._set(load=loads[0])
        steps: list[Step] = []
        for number, load in enumerate(loads[1:], start=2):
            if sweep and (step := measured.step()) and (why := why_end(sweep, [*steps, step])):
                self._end_sweep(why, number)
                return
            steps += [step] if sweep and step else []
            measured = self._measure_again(bench, number, load)
        if sweep and (step := measured.step()):
            self._end_sweep(why_end(sweep, [*steps, step]))

    def _end_sweep(self, why: str, number: int = 0) -> None:
        """Keep why there are no further steps; the others need not wait for this node at measurement `number`."""
        self._update(sweep_ended=why)
        if self.starting and number:
            end_starts(self.request.directory, self.starting[number - 1], number)

    def _measure(self, measured: Pass, start: Start | None) -> None:
        try:
            measured.run(start, lambda window: self._update(False, window=window))
        finally:
            if measured.window is not None:
                self._set(window=measured.window, cpu=measured.cpu, serving=measured.serving)
        self._set(loadgen=measured.loadgen)

    def _measure_again(self, bench: Bench, number: int, load: Load | None) -> Pass:
        prefix = of_repeat("", number)
        watched = self.request.resolved.settings.benchmark_telemetry
        watch = start_watch(bench.directory, self.result.environment, prefix) if watched else NoWatch()
        try:
            again = Pass(bench, self.result.target_qps or 0, prefix=prefix, load=load, watch=watch)
            start = self._begin(again, number)
            with self._measuring(number):
                again.run(start, lambda window: self._update(False))
        finally:
            watch.close()
        # From its samples now: all repeats' samples at once would need too much memory.
        metrics = again.metrics()
        repeat = {
            "number": number,
            "load": load,
            "window": again.window,
            "metrics": metrics,
            "loadgen": again.loadgen,
            "telemetry": watch.telemetry(metrics),
            "cpu": again.cpu,
            "serving": again.serving,
        }
        self._update(repeats=(*self.result.repeats, repeat))
        return again

    @contextmanager
    def _stage(self, stage: Stage, total: int = 0, reported: str = "") -> Iterator[None]:
        if stage == "measuring":
            self._set(stage=stage)  # written with the window's beginning: little is done between the word and the start
        else:
            self._update(stage=stage)
        self.progress.stage(reported or stage, total)
        began = time.monotonic()
        try:
            yield
        finally:
            # A stage may come twice: a node that measures alone first is ready before and after.
            taken = round(time.monotonic() - began + self.result.stages_s.get(stage, 0), 3)
            self._set(stages_s={**self.result.stages_s, stage: taken})

    def _set(self, **fields: Any) -> None:
        # Through validation, unlike model_copy: what is written is what a reader will accept.
        self.result = NodeResult.model_validate({**dict(self.result), **fields})

    def _update(self, synced: bool = True, /, **fields: Any) -> None:
        self._set(**fields)
        write_record(self.path, self.result, synced)

    def _finish(self, status: Any, error: str | None) -> None:
        fields: dict[str, Any] = {"status": status, "error": error[:4000] if error else None}
        if status == "complete":
            fields["stage"] = "done"
        fields["finished_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        result, alone = self.result, not self.profile.loads_model
        judged = (self.measured and self.measured.recorder) or result.accuracy or result.audit
        if judged or (alone and result.probes):
            with _not_in_the_way_of(status):
                fields |= self._judged(status)
        try:
            (self.request.directory / ROOM).unlink(missing_ok=True)
            self._update(**fields)
            if self.request.text:
                with _not_in_the_way_of(status):
                    write_atomic(self.path.with_suffix(".txt"), render_node(self.result))
            self.progress.finish(status)
        except OSError as full:
            todo = remedy(full.errno, "benchmark_work_dir")
            raise RunError(f"The result cannot be written to {self.path}: {full.strerror}. {todo}".rstrip()) from full

    def _judged(self, status: Status) -> dict[str, Any]:
        measured = self.measured.metrics() if self.measured else None
        watched = self.watch.telemetry(measured)
        return {
            "metrics": measured,
            "telemetry": watched,
            "verdict": self._verdict(self.result, measured, watched, status),
            "repeats": [
                {**dict(repeat), "verdict": self._verdict(repeat, repeat.metrics, repeat.telemetry, status)}
                for repeat in self.result.repeats
            ],
        }

    def _failures(self, measured: Metrics | None) -> str:
        """Say what most of the first repeat's failed queries failed with; of later ones no sample is kept.

        Full memory comes first: the others failed of it too, and what they say does not always tell.
        """
        recorder = self.measured.recorder if self.measured else None
        if recorder is None or measured is None or not measured.queries.failed:
            return ""
        errors = Counter(sample.error for sample in recorder.samples if sample.error)
        error, times = max(errors.items(), key=lambda item: (is_full(item[0]), item[1]), default=("", 0))
        return f"{times} of them: {self._explain(error)[:1000]}" if times else ""

    def _verdict(
        self, one: NodeResult | Repeat, measured: Metrics | None, watched: Telemetry | None, status: Status
    ) -> Verdict:
        prompts = self.result.dataset.prompts if self.result.dataset else None
        others = foreign_processes(self.request.resolved.settings, self.profile.engine, watched)
        found = Findings(
            measured,
            one.loadgen,
            self.result.accuracy,
            prompts,
            self._failures(measured),
            others,
            one.serving,
            self.result.audit,
            self.result.probes,
        )
        floors = self.request.resolved.settings.benchmark_probe_floors
        return judge(self.profile, found, self.result.target_qps or 0, status, floors)


@contextmanager
def _not_in_the_way_of(status: Status) -> Iterator[None]:
    """Print what breaks within, unless the run is complete.

    What broke the run (full memory, say) may break this too, and why it did is to be reported all the same.
    """
    try:
        yield
    except Exception:
        if status == "complete":
            raise
        traceback.print_exc()


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
