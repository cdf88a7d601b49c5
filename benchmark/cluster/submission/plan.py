"""The steps of a submission in order, each one run of the benchmark, and how long each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.audit import AUDIT_QUERIES, TEST06
from benchmark.cluster.estimated_duration import duration, loadgen_s
from benchmark.cluster.names import some
from benchmark.cluster.submission.rules import BENCHMARKS, Benchmark, Division
from benchmark.errors import InputError
from benchmark.profiles import load_profile
from benchmark.rundir import RUN_FILE, read_run

# The search for the highest valid target takes about this many probes of a minute.
PROBES, PROBE_S = 10, 60
# A node that takes twice the time is slow; one that takes longer hangs. Loading and warming up are added.
TIMEOUT_FACTOR, TIMEOUT_MORE_S = 2, 1800
MAX_TIMEOUT_S = 7 * 86400


@dataclass(frozen=True)
class Step:
    """One run of one scenario, with accuracy and, in the closed division, the audit. Times are seconds."""

    scenario: str
    profile: str
    target: str
    """benchmark_target_qps if the step has its own; empty: each node has the inventory's."""
    qps: float | None
    """Queries per second of a node, for estimating times; None: unknown."""
    parts: tuple[tuple[str, float | None], ...]
    """The step's parts and their durations; None: depends on an unknown rate."""

    @property
    def known_s(self) -> float:
        """The total time of the parts with a known time."""
        return sum(seconds for _, seconds in self.parts if seconds is not None)

    @property
    def whole_s(self) -> float | None:
        """The whole step's time; None if a part's is unknown."""
        return None if any(seconds is None for _, seconds in self.parts) else self.known_s

    def timeout_s(self, given_s: int) -> int:
        """Return benchmark_timeout_s: the given one, or more if the step takes longer."""
        needed = TIMEOUT_FACTOR * self.whole_s + TIMEOUT_MORE_S if self.whole_s is not None else MAX_TIMEOUT_S
        return min(MAX_TIMEOUT_S, max(given_s, int(needed)))


def benchmark_of(suite: str) -> Benchmark:
    """Return the benchmark of a suite. Raises InputError for another word."""
    for benchmark in BENCHMARKS:
        if benchmark.suite == suite:
            return benchmark
    raise InputError(f"submission_suite is {suite!r}: give {' or '.join(one.suite for one in BENCHMARKS)}.")


def scenarios_of(benchmark: Benchmark, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the scenarios to measure, in order: the wanted ones, or those that the closed division needs.

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
    """Return the step for a scenario. `qps`: queries per second of a node, if known.

    `search`: whether a node searches for its highest valid target first.
    """
    audit = [(TEST06, _over(AUDIT_QUERIES, qps))] if division == "closed" else []
    searched = [("search for the highest valid target", float(PROBES * PROBE_S))] if search else []
    chosen = profile or benchmark.profiles[scenario]
    parts = [
        *searched,
        ("performance", loadgen_s(load_profile(chosen), qps) if qps else None),
        (f"accuracy over {benchmark.samples:,} articles", _over(benchmark.samples, qps)),
        *audit,
    ]
    return Step(scenario, chosen, target, qps, tuple(parts))


def _over(queries: int, qps: float | None) -> float | None:
    return None if qps is None else queries / qps


def _words(seconds: float | None) -> str:
    return "of unknown length" if seconds is None else duration(seconds)


def plan_text(steps: Sequence[Step], begun: Mapping[str, Begun]) -> list[str]:
    """Return the plan in lines: each step with its parts and their durations. `begun`: scenario -> its run."""
    lines = []
    for number, step in enumerate(steps, start=1):
        head = f"Step {number} of {len(steps)}, {step.scenario}"
        known = begun.get(step.scenario)
        if known is not None and not known.left:
            lines.append(f"{head}: already measured in the run {known.run_id} ({known.asked}).")
            continue
        if known is not None:
            head += f", continues in the run {known.run_id} ({known.asked}) with {some(known.left)}"
        reported = ", ".join(f"{what} {_words(seconds)}" for what, seconds in step.parts)
        rate = f"at {step.qps:g} queries/s a node" if step.qps else "at a rate that is still unknown"
        lines.append(f"{head}: {reported} ({rate}).")
    left = [step for step in steps if step.scenario not in begun or begun[step.scenario].left]
    unknown = any(step.whole_s is None for step in left)
    total = duration(sum(step.known_s for step in left))
    about = "at least" if unknown else "about"
    lines.append(f"Together {about} {total}, and what each step takes to provide, load and warm up.")
    return lines


@dataclass(frozen=True)
class Begun:
    """A step that already has a run. It keeps that run's settings, whatever the current ones."""

    run_id: str
    asked: str
    """Profile and target, in words."""
    qps: float | None
    """The slowest node's queries per second; None if no node has reported any."""
    left: tuple[str, ...]
    """Nodes that lack a part of the step."""


def begun(directory: Path, nodes: Sequence[str], division: Division) -> Begun | None:
    """Return how far the latest run in `directory` is for these nodes; None if there is no run."""
    run_dir = (directory / "latest").resolve()
    if not (run_dir / RUN_FILE).is_file():
        return None
    # Imports numpy: only if there is a run to read, to keep it out of ansible-playbook's own process.
    from benchmark.cluster.results.load import load_node

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
