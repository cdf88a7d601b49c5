"""The peak search: the highest rate at which short Server runs are valid. A full-length run at it then decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from benchmark import metrics
from benchmark.columns import Columns
from benchmark.errors import RunError
from benchmark.loadgen_log import CONSTRAINTS
from benchmark.loadgen_options import Purpose
from benchmark.node.interfaces import now_ns
from benchmark.node.measuring import Bench
from benchmark.node.recorder import Recorder
from benchmark.records import LoadGenResult, Metrics, PeakSearch, Probe, Sample
from benchmark.verdict import Findings, judge

PRECISION = 0.05
MOST_PROBES = 12
# Server runs reach less than a burst does: only a guess, which the search corrects.
FIRST_GUESS = 0.8
# Above a burst's rate, so that LoadGen generates enough queries for its minimum duration.
ROOM = 1.2
PERFORMANCE = CONSTRAINTS["result_perf_constraints_met"]


@dataclass(frozen=True)
class Found:
    """The result of a search: the highest valid rate, and whether an invalid rate close above it is known."""

    rate: float | None
    settled: bool


def search(
    valid: Callable[[float], bool], start: float, precision: float = PRECISION, most: int = MOST_PROBES
) -> Found:
    """Bracket the highest valid rate from `start` by doubling or halving, then bisect, with at most `most` probes.

    `settled`: an invalid rate within `precision` above the valid one is known.
    """
    low: float | None = None
    high: float | None = None
    rate = start
    for _ in range(most):
        rate = float(f"{rate:.4g}")  # users will type it
        if valid(rate):
            low = rate
        else:
            high = rate
        if low is not None and high is not None:
            if high / low <= 1 + precision:
                return Found(low, settled=True)
            rate = math.sqrt(low * high)
        else:
            rate = rate * 2 if high is None else rate / 2
    return Found(low, settled=False)


@dataclass(frozen=True)
class PeakFinder:
    """Runs the probes. The bench's scenario is LoadGen's, its engine loaded and warm."""

    bench: Bench
    most: int = MOST_PROBES

    def find(self, replicas: int) -> PeakSearch:
        """Return the highest valid rate, in queries per second for the whole node, and all probes.

        Without latency limits (Offline) it is a burst's rate, plus some so that LoadGen has enough queries.
        """
        burst = self.burst()
        probes: list[Probe] = []

        def valid(rate: float) -> bool:
            self.bench.progress.stage(f"searching: probe {len(probes) + 1} at {rate:g} queries/s")
            probes.append(self._probe(rate, f"probe{len(probes) + 1:02}_"))
            return probes[-1].valid

        if self.bench.profile.scenario_options.get("scenario") == "Server":
            found = search(valid, burst * FIRST_GUESS, most=self.most)
        else:
            found = Found(float(f"{burst * ROOM:.4g}"), settled=False)
        host_vars = "" if found.rate is None else f"benchmark_target_qps: {found.rate / replicas:.4g}"
        return PeakSearch(target_qps=found.rate, settled=found.settled, probes=tuple(probes), host_vars=host_vars)

    def probe(self, rate: float) -> Probe:
        """Return the result of one run at that rate."""
        return self._probe(rate, f"rate{rate:g}_")

    def burst(self) -> float:
        """Return the queries per second of a burst issued at once: what the engine can do without any limit."""
        self.bench.progress.stage("searching: a burst of queries")
        samples, loadgen = self._run(1, "burst")
        measured = self._measured(samples, loadgen)
        if errors := [sample.error for sample in samples if sample.error]:
            raise RunError(f"The search's first burst of queries failed: {errors[0]}")
        if not measured.qps:
            raise RunError("The search's first burst of queries has no rate.")
        return measured.qps

    def _probe(self, rate: float, prefix: str) -> Probe:
        samples, loadgen = self._run(rate, "probe", prefix)
        measured = self._measured(samples, loadgen)
        # The profile's own limits, and only this part of LoadGen's verdict: a short run has too few queries for the
        # rest.
        limits = self.bench.profile.model_copy(update={"accuracy": "off"})
        reasons = list(judge(limits, Findings(measured), rate, "complete").reasons)
        if loadgen is None or not loadgen.constraints.get(PERFORMANCE, False):
            reasons += [*(loadgen.reasons[:1] if loadgen else ()), f"LoadGen: {PERFORMANCE}: no."]
        return Probe(
            target_qps=rate,
            valid=not reasons,
            reasons=tuple(reasons),
            qps=measured.qps,
            ttft_p99_ms=measured.ttft_ms.p99 if measured.ttft_ms else None,
            tpot_p99_ms=measured.tpot_ms.p99 if measured.tpot_ms else None,
        )

    def _run(self, rate: float, purpose: Purpose, prefix: str = "") -> tuple[list[Sample], LoadGenResult | None]:
        recorder = Recorder(self.bench.engine, None, now_ns(), lambda sample, done: None)
        try:
            # A probe is short: the run's progress is reported instead.
            conditions = replace(self.bench.conditions(rate, purpose, prefix or f"{purpose}_"), begins=lambda *_: None)
            outcome = self.bench.scenario.run(self.bench.workload, recorder, conditions)
        finally:
            recorder.close()
        return recorder.amend(outcome.scheduled_ns), outcome.loadgen

    def _measured(self, samples: Iterable[Sample], loadgen: LoadGenResult | None) -> Metrics:
        columns = Columns.of(samples)
        least = self.bench.profile.generation.min_new_tokens
        return metrics.compute(columns, metrics.issued(columns), loadgen, least)
