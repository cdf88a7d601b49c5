"""The measurements of a run: one, its repeats, or the steps of a sweep; each begins when all nodes are ready."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from benchmark import closed_loop_options
from benchmark.ladder import Step, loads_of, why_end
from benchmark.loadgen_log import SOLO
from benchmark.node.lock import ALONE, STARTING, Lock
from benchmark.node.measuring import Bench, Pass
from benchmark.node.open_result import OpenResult
from benchmark.node.peak import PeakFinder
from benchmark.node.request import RunRequest
from benchmark.node.together import Start, end_starts, end_turn, wait_for_start, wait_for_turn
from benchmark.node.watch.telemetry import NoWatch, Watch, start_watch
from benchmark.option_models import CLOSED_LOOP
from benchmark.records import Load, Solo
from benchmark.rundir import READY, of_repeat

# Seconds for which an idle GPU's power is measured if there is nothing else to wait for.
IDLE_S = 1.0


class Measurements:
    """Measures on a loaded engine, and stores the results in the open result.

    Created before anything is loaded: other nodes wait at its locks. `starting`: one for each repeat, held until this
    node is ready for it. `first`, `last`: the first and the last measurement that began, even if it failed; None: none
    began.
    """

    def __init__(self, request: RunRequest, result: OpenResult) -> None:
        self._request, self._open = request, result
        self._profile = request.resolved.profile
        self._count = request.resolved.measurements - request.first_step + 1
        self.starting = [] if request.wait_s is None else [*self._locks()]
        self._turn = Lock(request.directory / ALONE) if request.solo else None
        self.first: Pass | None = None
        self.last: Pass | None = None

    def run(self, bench: Bench, watch: Watch | NoWatch) -> None:
        """Measure alone first if requested, then with the others; `watch` covers the first measurement."""
        if self.starting and self._turn is not None:
            self._measure_alone(bench, self.starting[0], self._turn)
        self._measure_all(bench, self._loads(bench), watch)

    def _locks(self) -> Iterator[Lock]:
        directory = self._request.directory
        yield Lock(directory / STARTING, self._request.starting_lock)
        for number in range(2, self._count + 1):
            yield Lock(directory / f"{of_repeat(READY, number)}.lock")

    def _measure_alone(self, bench: Bench, starting: Lock, turn: Lock) -> None:
        alone = Pass(bench, self._open.result.target_qps or 0, prefix=SOLO)
        alone.prepare()
        with self._open.stage("ready", reported="ready, waiting for its turn to measure alone"):
            wait_for_turn(bench.directory, self._request.wait_s or 0, self._open.result.environment, starting)
        with self._open.stage("measuring alone", self._profile.samples or 0):
            alone.run()
            self._open.update(solo=Solo(window=alone.window, metrics=alone.metrics(), loadgen=alone.loadgen))
            end_turn(bench.directory, turn)

    def _begin(self, measured: Pass, number: int) -> Start | None:
        """Measure idle power, and return the agreed start of a repeat once it has arrived; None: begin at once."""
        measured.prepare()
        if measured.watch.gpus:  # for a host without GPUs there is nothing to measure
            measured.watch.idle()
        if self._request.wait_s is None:
            if measured.watch.gpus:
                time.sleep(IDLE_S)
            return None
        with self._open.stage("ready", reported="ready, waiting for the others"):
            request, environment, lock = self._request, self._open.result.environment, self.starting[number - 1]
            return wait_for_start(request.directory, request.wait_s or 0, environment, lock, number)

    def _measuring(self, number: int) -> AbstractContextManager[None]:
        what, before = ("step", self._request.first_step - 1) if self._profile.sweep else ("repeat", 0)
        of = before + self._count
        which = f", {what} {before + number} of {of}" if of > 1 else ""
        return self._open.stage("measuring", self._profile.samples or 0, reported=f"measuring{which}")

    def _loads(self, bench: Bench) -> list[Load | None]:
        """Return the load of each measurement; None: as in the profile's scenario."""
        sweep = self._profile.sweep
        if sweep is None:
            closed = self._profile.scenario == CLOSED_LOOP
            options = closed_loop_options.Options.model_validate(self._profile.scenario_options) if closed else None
            return [Load(concurrency=options.concurrency) if options else None] * self._count
        burst = self._request.burst_qps or 0.0
        if sweep.rate and not burst:
            with self._open.stage("searching"):
                burst = PeakFinder(bench).burst()
        return [*loads_of(sweep, burst)[self._request.first_step - 1 :]]

    def _measure_all(self, bench: Bench, loads: Sequence[Load | None], watch: Watch | NoWatch) -> None:
        """Measure the profile as often as requested, or at one load after the other until the ladder ends."""
        target, sweep = self._open.result.target_qps or 0, self._profile.sweep
        device = self._request.settings.benchmark_device
        measured = self.first = self.last = Pass(bench, target, load=loads[0], watch=watch)
        start = self._begin(measured, 1)
        with self._measuring(1):
            self._measure(measured, start)
        self._open.set(load=loads[0])
        steps: list[Step] = []
        for number, load in enumerate(loads[1:], start=2):
            if sweep and (step := measured.step()) and (why := why_end(sweep, [*steps, step], device)):
                self._end_sweep(why, number)
                return
            steps += [step] if sweep and step else []
            measured = self._measure_again(bench, number, load)
        if sweep and (step := measured.step()):
            self._end_sweep(why_end(sweep, [*steps, step], device))

    def _end_sweep(self, why: str, number: int = 0) -> None:
        """Store why there are no further steps; other nodes need not wait for this one at measurement `number`."""
        self._open.update(sweep_ended=why)
        if self.starting and number:
            end_starts(self._request.directory, self.starting[number - 1], number)

    def _measure(self, measured: Pass, start: Start | None) -> None:
        try:
            measured.run(start, lambda window: self._open.update(False, window=window))
        finally:
            if measured.window is not None:
                self._open.set(window=measured.window, cpu=measured.cpu, serving=measured.serving)
        self._open.set(loadgen=measured.loadgen, arrivals_sha256=measured.arrivals_sha256)

    def _measure_again(self, bench: Bench, number: int, load: Load | None) -> Pass:
        prefix = of_repeat("", number)
        watched = self._request.resolved.settings.benchmark_telemetry
        watch = start_watch(bench.directory, self._open.result.environment, prefix) if watched else NoWatch()
        try:
            again = self.last = Pass(bench, self._open.result.target_qps or 0, prefix=prefix, load=load, watch=watch)
            start = self._begin(again, number)
            with self._measuring(number):
                again.run(start, lambda window: self._open.update(False))
        finally:
            watch.close()
        # Computed from its samples now: keeping the samples of all repeats would need too much memory.
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
        self._open.update(repeats=(*self._open.result.repeats, repeat))
        return again
