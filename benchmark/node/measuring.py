"""The parts of a run that answer queries: each has its own window and file names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmark import metrics
from benchmark.audit import AUDIT_PREFIX, judge_audit
from benchmark.columns import Columns
from benchmark.errors import InputError, RunError
from benchmark.files import rewrite_samples, sample_writer
from benchmark.ladder import Step, sustained
from benchmark.loadgen_log import ACCURACY, ANSWERS
from benchmark.loadgen_options import Purpose
from benchmark.node.accuracy import answers_of, has_references, model_ends, read_answers, score
from benchmark.node.interfaces import Conditions, Dataset, Engine, Outcome, Query, Scenario, Workload, now_ns
from benchmark.node.progress import ProgressWriter
from benchmark.node.recorder import Recorder
from benchmark.node.together import Start, sleep_until
from benchmark.node.watch import cpu_time
from benchmark.node.watch.telemetry import NoWatch, Watch
from benchmark.profiles import Profile
from benchmark.records import Accuracy, Audit, CpuTime, Load, LoadGenResult, Metrics, Sample, Server, Serving, Window
from benchmark.settings import Settings
from benchmark.settings.measurement import DEFAULT_ROUND
from benchmark.words import plural

SAMPLES = "samples.jsonl"
ACCURACY_SAMPLES = ACCURACY + SAMPLES


@dataclass(frozen=True)
class Bench:
    """What all passes of a run share: the loaded engine, its scenario, and the directory for the files."""

    engine: Engine
    scenario: Scenario
    workload: Workload
    profile: Profile
    directory: Path
    progress: ProgressWriter
    mlperf_round: str = DEFAULT_ROUND
    expected_ms: float | None = None
    """Latency of a single query in the warm-up."""
    replicas: int = 1
    servers: tuple[Server, ...] = ()
    """The nodes that serve as one system; empty: this node itself."""

    def conditions(
        self, target_qps: float, purpose: Purpose = "performance", prefix: str = "", load: Load | None = None
    ) -> Conditions:
        """Return the scenario's conditions for that purpose; a `load` takes precedence."""
        return Conditions(
            self.directory,
            target_qps if load is None or load.rate is None else load.rate,
            purpose,
            prefix,
            self.expected_ms,
            self.mlperf_round,
            self.progress.begin,
            self.replicas,
            load.concurrency if load else None,
        )

    def report(self, sample: Sample, done: int) -> None:
        """Report the progress of the pass."""
        began_ns = sample.issued_ns if sample.scheduled_ns is None else sample.scheduled_ns
        taken_ms = None if sample.completed_ns is None else (sample.completed_ns - began_ns) / 1e6
        self.progress.advance(done, taken_ms)

    def in_turn(self, queries: Sequence[Query], shown: bool) -> list[Sample]:
        """Answer the queries one after the other, without writing anything to disk."""
        recorder = Recorder(self.engine, None, now_ns(), self.report if shown else lambda sample, done: None)
        for query in queries:
            recorder.issue(query, now_ns())
            recorder.wait(query)
        return recorder.samples


@dataclass
class Pass:
    """One measurement of the profile. Its results so far are available even if it fails."""

    bench: Bench
    target_qps: float
    prefix: str = ""
    load: Load | None = None
    """The load on the system; None: as in the profile's scenario."""
    watch: Watch | NoWatch = field(default_factory=NoWatch)
    recorder: Recorder | None = None
    window: Window | None = None
    loadgen: LoadGenResult | None = None
    arrivals_sha256: str = ""
    cpu: CpuTime | None = None
    serving: Serving | None = None

    def prepare(self) -> None:
        """Do what takes time before a measurement, before a start is agreed on."""
        self.bench.engine.begin_window()

    def run(self, start: Start | None = None, expected: Callable[[Window], None] = lambda window: None) -> None:
        """Measure, from the agreed start if there is one; call `prepare` first.

        `expected` is called with the window's beginning before that moment: nothing may use the disk between an agreed
        start and the queries.
        """
        bench, path = self.bench, self.bench.directory / f"{self.prefix}{SAMPLES}"
        asked_unix_ns = start.unix_ns if start else None
        with sample_writer(path) as writer:
            begin_unix_ns = time.time_ns() if start is None else start.unix_ns
            expected(Window.of(begin_unix_ns, begin_unix_ns, asked_unix_ns))
            cpu = cpu_time.read()
            if start is not None:
                sleep_until(start.at_ns)
            began_unix_ns, began_ns = time.time_ns(), now_ns()
            self.watch.start(began_ns)
            self.recorder = Recorder(bench.engine, writer, began_ns, bench.report)
            try:
                bench.progress.begin()
                conditions = bench.conditions(self.target_qps, prefix=self.prefix, load=self.load)
                outcome = bench.scenario.run(bench.workload, self.recorder, conditions)
            finally:
                self.recorder.close()
                ended_ns = now_ns()
                self.window = Window.of(began_unix_ns, began_unix_ns + ended_ns - began_ns, asked_unix_ns)
                self.watch.end(began_ns, ended_ns)
                self.cpu = cpu_time.between(cpu, cpu_time.read())
                self.serving = bench.engine.end_window()
        self.loadgen, self.arrivals_sha256 = outcome.loadgen, outcome.arrivals_sha256
        if outcome.scheduled_ns:
            rewrite_samples(path, self.recorder.amend(outcome.scheduled_ns))

    def step(self) -> Step | None:
        """Return the step for the ladder; None if there is no load, or no query could be issued."""
        measured = self.metrics()
        if self.load is None or self.recorder is None or measured is None:
            return None
        return Step(self.load, measured, sustained(Columns.of(self.recorder.samples)))

    def metrics(self) -> Metrics | None:
        """Return the metrics of the samples; None if no query could be issued."""
        if self.recorder is None:
            return None
        planned = self.bench.profile.samples or self.recorder.issued
        least = self.bench.profile.generation.min_new_tokens
        return metrics.compute(Columns.of(self.recorder.samples), planned, self.loadgen, least)


def _record(bench: Bench, conditions: Conditions, samples: str) -> tuple[Outcome, Recorder]:
    """Run the scenario outside the measurement, and write its samples to the file of that name."""
    with sample_writer(bench.directory / samples) as writer:
        recorder = Recorder(bench.engine, writer, now_ns(), bench.report)
        try:
            return bench.scenario.run(bench.workload, recorder, conditions), recorder
        finally:
            recorder.close()


def judge_answers(bench: Bench, dataset: Dataset, target_qps: float, settings: Settings) -> Accuracy:
    """Return the accuracy of the answers: the tokens that identical nodes must agree on, and any scores.

    `target_qps` is for the whole node: in the Server scenario the accuracy run uses that rate too.
    """
    greedy = _greedy(bench)
    if not has_references(dataset):
        return greedy
    outcome, recorder = _record(bench, bench.conditions(target_qps, "accuracy", prefix=ACCURACY), ACCURACY_SAMPLES)
    if unknown := sum(sample.error is None and not sample.token_ids for sample in recorder.samples):
        raise RunError(
            f"The engine reports no token ids for {unknown} answers, which are scored by their ids: use a server "
            "that returns them (vLLM does), or set benchmark_accuracy: off."
        )
    answers = read_answers(bench.directory / f"{ACCURACY}{ANSWERS}") if outcome.loadgen else None
    failed = [error_of(sample, bench.servers) for sample in recorder.samples if sample.error]
    return Accuracy(
        greedy=greedy.greedy,
        rouge=score(answers or answers_of(recorder.samples), dataset, settings),
        loadgen=outcome.loadgen,
        errors=greedy.errors + len(failed),
        error=next((error for error in (greedy.error, *failed) if error), ""),
    )


def run_audit(bench: Bench, target_qps: float, settings: Settings) -> Audit:
    """Run the compliance test at the node's target, and return its result.

    Raises RunError if LoadGen left no result.
    """
    conditions = bench.conditions(target_qps, "audit", prefix=AUDIT_PREFIX)
    outcome, recorder = _record(bench, conditions, f"{AUDIT_PREFIX}{SAMPLES}")
    if outcome.loadgen is None:
        raise RunError("The audit run has no LoadGen result.")
    try:
        audit = judge_audit(bench.directory, outcome.loadgen, model_ends(settings))
    except InputError as error:
        raise RunError(str(error)) from None
    return audit.model_copy(update={"errors": sum(sample.error is not None for sample in recorder.samples)})


def unanswered_words(recorder: Recorder, servers: Sequence[str]) -> str:
    """Return which of several servers had not answered when the recorder was closed: a hung one reports nothing."""
    waited = {place: count for place, count in recorder.unanswered.items() if place is not None}
    words = [f"{plural(waited[place], 'query', 'queries')} on {servers[place]}" for place in sorted(waited)]
    return f"Still unanswered when it ended: {', '.join(words)}." if words else ""


def error_of(sample: Sample, servers: Sequence[Server]) -> str:
    """Return a query's error, with the node's name if several nodes serve."""
    error = sample.error or ""
    return error if sample.server is None or not servers else f"{servers[sample.server].node}: {error}"


def _greedy(bench: Bench) -> Accuracy:
    """Return the tokens that identical nodes must agree on: for the first prompts, without sampling."""
    queries = [replace(bench.workload.query(index), greedy=True) for index in range(bench.profile.greedy_prompts)]
    samples = bench.in_turn(queries, shown=False)
    errors = [error_of(sample, bench.servers) for sample in samples if sample.error]
    # A server that reports no tokens has none to compare.
    greedy = {sample.prompt_id: sample.token_ids for sample in samples if sample.token_ids and not sample.error}
    return Accuracy(greedy=greedy, errors=len(errors), error=errors[0] if errors else "")
