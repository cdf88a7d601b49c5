"""What a division asks for as steps in order, one run of the benchmark each, and how long each takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.audit import AUDIT_QUERIES, TEST06
from benchmark.cluster.names import some
from benchmark.cluster.submission.rules import BENCHMARKS, MIN_DURATION_MS, Benchmark, Division
from benchmark.errors import InputError
from benchmark.rundir import RUN_FILE, read_run

MIN_DURATION_S = MIN_DURATION_MS / 1000
# LoadGen plans queries for so much more than its least duration at the expected rate: of an Offline query that is its
# slack, and SingleStream's latency is told to it with room, because answers differ.
PLANNED_S = {"Offline": 1.1 * MIN_DURATION_S, "SingleStream": 4 / 3 * MIN_DURATION_S}
# Of the search for the highest valid target: so many probes of a minute, about.
PROBES, PROBE_S = 10, 60
# A node that takes twice the time is slow; one that takes more hangs. Loading and warming up come before.
TIMEOUT_FACTOR, TIMEOUT_MORE_S = 2, 1800
MAX_TIMEOUT_S = 7 * 86400


@dataclass(frozen=True)
class Step:
    """One run of one scenario, with accuracy and, in the closed division, the audit. Times are seconds."""

    scenario: str
    profile: str
    target: str
    """benchmark_target_qps, where the step is given one of its own; else empty, and each node has the inventory's."""
    qps: float | None
    """Queries per second of a node that the times are reckoned with; None: not known."""
    parts: tuple[tuple[str, float | None], ...]
    """What it consists of, and how long each takes; None: it depends on a rate that is not known."""

    @property
    def known_s(self) -> float:
        """The parts whose time is known, together."""
        return sum(seconds for _, seconds in self.parts if seconds is not None)

    @property
    def whole_s(self) -> float | None:
        """The whole step's time; None where a part's is not known."""
        return None if any(seconds is None for _, seconds in self.parts) else self.known_s

    def timeout_s(self, given_s: int) -> int:
        """Return benchmark_timeout_s: what is given, or more where the step takes longer."""
        needed = TIMEOUT_FACTOR * self.whole_s + TIMEOUT_MORE_S if self.whole_s is not None else MAX_TIMEOUT_S
        return min(MAX_TIMEOUT_S, max(given_s, int(needed)))


def benchmark_of(suite: str) -> Benchmark:
    """Return the benchmark of a suite. Raises InputError for another word."""
    for benchmark in BENCHMARKS:
        if benchmark.suite == suite:
            return benchmark
    raise InputError(f"submission_suite is {suite!r}: give {' or '.join(one.suite for one in BENCHMARKS)}.")


def scenarios_of(benchmark: Benchmark, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the scenarios to measure, in order: those that are wanted, or what the closed division needs.

    Raises InputError for a scenario that the benchmark does not have.
    """
    unknown = [name for name in wanted if name not in benchmark.profiles]
    if unknown:
        raise InputError(
            f"submission_scenarios names {', '.join(unknown)}: {benchmark.name} has {', '.join(benchmark.profiles)}."
        )
    chosen = set(wanted) or {*benchmark.required, *benchmark.one_of[:1]}
    return tuple(name for name in benchmark.profiles if name in chosen)


def plan_step(
    benchmark: Benchmark,
    scenario: str,
    division: Division,
    target: str,
    qps: float | None,
    profile: str = "",
    search: bool = False,
) -> Step:
    """Return the step for a scenario. `qps`: what a node answers in a second, as far as is known.

    `search`: whether a node looks for its highest valid target first.
    """
    audit = [(TEST06, _over(AUDIT_QUERIES, qps))] if division == "closed" else []
    searched = [("search for the highest valid target", float(PROBES * PROBE_S))] if search else []
    parts = [
        *searched,
        ("performance", _performance_s(benchmark, scenario, qps)),
        (f"accuracy over {benchmark.samples:,} articles", _over(benchmark.samples, qps)),
        *audit,
    ]
    return Step(scenario, profile or benchmark.profiles[scenario], target, qps, tuple(parts))


def _performance_s(benchmark: Benchmark, scenario: str, qps: float | None) -> float | None:
    if qps is None:
        return None
    # LoadGen asks for every article equally often, so the least are all of them.
    rounds = math.ceil(PLANNED_S.get(scenario, MIN_DURATION_S) * qps / benchmark.samples)
    return max(MIN_DURATION_S, rounds * benchmark.samples / qps)


def _over(queries: int, qps: float | None) -> float | None:
    return None if qps is None else queries / qps


def plan_text(steps: Sequence[Step], begun: Mapping[str, Begun]) -> list[str]:
    """Return the plan in lines: each step, what it consists of and how long it takes. `begun`: scenario -> its run."""
    lines = []
    for number, step in enumerate(steps, start=1):
        head = f"Step {number} of {len(steps)}, {step.scenario}"
        known = begun.get(step.scenario)
        if known is not None and not known.left:
            lines.append(f"{head}: measured already in the run {known.run_id} ({known.asked}).")
            continue
        if known is not None:
            head += f", goes on in the run {known.run_id} ({known.asked}) with {some(known.left)}"
        told = ", ".join(f"{what} {duration(seconds)}" for what, seconds in step.parts)
        rate = f"at {step.qps:g} queries/s a node" if step.qps else "at a rate that is not known yet"
        lines.append(f"{head}: {told} ({rate}).")
    left = [step for step in steps if step.scenario not in begun or begun[step.scenario].left]
    unknown = any(step.whole_s is None for step in left)
    total = duration(sum(step.known_s for step in left))
    about = "at least" if unknown else "about"
    lines.append(f"Together {about} {total}, and what each step takes to provide, load and warm up.")
    return lines


def duration(seconds: float | None) -> str:
    """Return a time for people: "45 s", "12 min", "7 h 26 min"."""
    if seconds is None:
        return "of unknown length"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True)
class Begun:
    """A step that a run was made for. It keeps what it was asked with, whatever is asked for now."""

    run_id: str
    asked: str
    """Profile and target, in words."""
    qps: float | None
    """The slowest node's queries per second; None: no node has told any."""
    left: tuple[str, ...]
    """Nodes that lack something of the step."""


def begun(directory: Path, nodes: Sequence[str], division: Division) -> Begun | None:
    """Return how far the latest run in `directory` is for these nodes; None: there is none."""
    # Here and not above: what reads samples (numpy) is not to be loaded with the plugins.
    from benchmark.cluster.load import load_node

    run_dir = (directory / "latest").resolve()
    if not (run_dir / RUN_FILE).is_file():
        return None
    run = read_run(run_dir)
    rates, left = [], []
    for node in nodes:
        loaded = load_node(run_dir, run, node) if node in run.nodes else None
        result = loaded.result if loaded is not None and loaded.counted else None
        has_audit = division == "open" or (result is not None and result.audit is not None)
        if result is None or result.loadgen is None or result.accuracy is None or not has_audit:
            left.append(node)
        elif loaded and loaded.metrics and loaded.metrics.qps:
            rates.append(loaded.metrics.qps)
    asked = {f"{one.profile.name}, target {one.settings.benchmark_target_qps}" for one in run.nodes.values()}
    return Begun(run.run_id, " and ".join(sorted(asked)), min(rates, default=None), tuple(left))
