"""Read a run's files: each node's on its own, so that a bad one takes nobody else's result with it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmark.cluster.results.read_columns import read_columns
from benchmark.cluster.results.time_series import TimeSeries, time_series_of
from benchmark.cluster.results.verify import (
    check_claims,
    check_loadgen,
    check_origin,
    check_repeats,
    check_solo,
    measured,
)
from benchmark.columns import Columns, doubles
from benchmark.errors import InputError
from benchmark.files import read_record, read_ticks
from benchmark.fleet.rendezvous import READY_FILE
from benchmark.goodput import goodput, limits_of
from benchmark.ladder import Sustained, sustained
from benchmark.loadgen_log import SOLO, read_limits
from benchmark.metrics import LOADGENS, NS_PER_S, defined, heard, latencies_ms, tpots_ms, ttfts_ms
from benchmark.records import Failure, Goodput, Metrics, NodeResult, ReadyNode, RunRecord, Slo
from benchmark.repeats import repeat_of
from benchmark.rundir import ATTEMPT, FAILURE, NODES, of_repeat

SAMPLES = "samples.jsonl"
TELEMETRY = "telemetry.jsonl"
# Of failures: a record holds at most 4000 characters.
MAX_REASON = 4000


@dataclass(frozen=True)
class Times:
    """The samples' times in milliseconds: what pooling needs, in a hundredth of the samples' memory."""

    latency_ms: array[float] = field(default_factory=lambda: array("d"))
    ttft_ms: array[float] = field(default_factory=lambda: array("d"))
    tpot_ms: array[float] = field(default_factory=lambda: array("d"))
    ended_s: array[float] = field(default_factory=lambda: array("d"))
    """When each completed sample had, since the first was issued."""
    tokens: array[float] = field(default_factory=lambda: array("d"))
    """Its output tokens."""
    sustained: Sustained = field(default_factory=Sustained)

    @cached_property
    def ascending(self) -> dict[str, array[float]]:
        """The times in ascending order, by name."""
        return {name: doubles(np.sort(getattr(self, name))) for name in ("latency_ms", "ttft_ms", "tpot_ms")}

    @classmethod
    def of(cls, samples: Columns, metrics: Metrics | None = None) -> Times:
        """Return the times of the completed samples, seen from where the times of `metrics` are seen from."""
        done = samples.completed
        seen = heard(samples) if metrics is not None and metrics.times_of == LOADGENS else samples
        began_ns = samples.issued_ns.min() if len(samples) else 0
        return cls(
            latency_ms=doubles(defined(latencies_ms(seen))),
            ttft_ms=doubles(defined(ttfts_ms(seen))),
            tpot_ms=doubles(defined(tpots_ms(seen))),
            ended_s=doubles((samples.completed_ns[done] - began_ns) / NS_PER_S),
            tokens=doubles(samples.output_tokens[done].astype(np.float64)),
            sustained=sustained(samples),
        )


@dataclass(frozen=True)
class Measurement:
    """One repeat of a node that counts, or one step of a sweep: the result as if it were its only one, and its own."""

    result: NodeResult
    metrics: Metrics | None
    times: Times
    time_series: TimeSeries | None
    clock: ReadyNode | None
    goodput: Goodput | None
    samples: str = SAMPLES
    """Where its samples are, within the node's directory."""


@dataclass(frozen=True)
class LoadedNode:
    """What is known of one node that was asked. `refused` says why its files are not believed."""

    node: str
    result: NodeResult | None = None
    metrics: Metrics | None = None
    times: Times = field(default_factory=Times)
    time_series: TimeSeries | None = None
    failure: Failure | None = None
    refused: str | None = None
    clock: ReadyNode | None = None
    goodput: Goodput | None = None
    problems: tuple[str, ...] = ()
    later: tuple[Measurement, ...] = ()
    """Of a node that counts: its repeats from the second on. The fields above are the first one's. And of a sweep, of
    any node that completed steps."""
    earlier: tuple[Measurement, ...] = ()
    """Steps of a sweep that earlier attempts measured."""
    samples: str = SAMPLES
    """Where the samples are, within the node's directory."""
    steps: Mapping[float, Measurement] = field(default_factory=dict)
    """Where a step of a sweep was chosen: all of them, by their load."""
    repeats: tuple[LoadedNode, ...] = ()
    """Where a repeat was chosen and all of them are needed: each as if it were the node's only one."""

    @property
    def counted(self) -> bool:
        """Whether its numbers are part of the totals: complete and believed."""
        return self.result is not None and self.result.status == "complete"

    @property
    def measured(self) -> bool:
        """Whether it counts and has figures that another run's may be held against: of queries, or of probes."""
        return self.counted and (self.metrics is not None or bool(self.result and self.result.probes))


def unknown_dirs(run_dir: Path, run: RunRecord) -> list[str]:
    """Return a sentence for everything under nodes/ that belongs to no node of the run."""
    found = (run_dir / NODES).iterdir() if (run_dir / NODES).is_dir() else ()
    names = sorted(path.name for path in found if path.name not in run.nodes and not path.name.startswith("."))
    return [f"{NODES}/{name}: no node of this name was asked; passed over." for name in names]


def tell_into(problems: list[str], run_dir: Path) -> Callable[[InputError], str]:
    """Return what adds an error to `problems`, with paths within the run, and returns its sentence."""

    def tell(error: InputError) -> str:
        sentence = str(error).replace(f"{run_dir}/", "")
        problems.append(sentence)
        return sentence

    return tell


def load_node(
    run_dir: Path, run: RunRecord, node: str, slo: Slo | None = None, directory: Path | None = None
) -> LoadedNode:
    """Return what the node's files say. Never raises for their content: what is wrong is reported in the result.

    Goodput is held against `slo`; None: against the profile's own limits. `directory`: where its files are, if not
    under nodes/.
    """
    directory = directory or run_dir / NODES / node
    problems: list[str] = []
    tell = tell_into(problems, run_dir)
    if directory.is_symlink():
        refused = tell(InputError(f"{directory}: a symbolic link; refused."))
        return LoadedNode(node, refused=refused, problems=tuple(problems))
    failure = None
    try:
        failure = read_failure(directory / FAILURE, node)
    except InputError as error:
        tell(error)
    try:
        result, metrics, samples = _read_result(directory, run, node)
        first = _context(directory, node, result.attempt if result else 1, samples, 1, tell)
        good = _goodput(directory, result, metrics, samples, slo)
        later = _believed(directory, run, node, result, tell, slo) if result else ()
        earlier = tuple(_earlier(directory, run, node, tell, slo))
    except InputError as error:
        return LoadedNode(node, failure=failure, refused=tell(error), problems=tuple(problems))
    series, clock = first
    if failure is not None and result is not None and result.status == "complete":
        problems.append(f"{node}: its result is complete and counted, though it failed: {one_line(failure)}")
    return LoadedNode(
        node=node,
        result=result,
        metrics=metrics,
        times=Times.of(samples, metrics),
        time_series=series,
        failure=failure,
        clock=clock,
        goodput=good,
        problems=tuple(problems),
        later=later,
        earlier=earlier,
    )


def _context(
    directory: Path, node: str, attempt: int, samples: Columns, repeat: int, tell: Callable[[InputError], str]
) -> tuple[TimeSeries | None, ReadyNode | None]:
    """Return the series and the clock of a measurement; what is wrong with them is reported, and in no total."""
    watched = directory / of_repeat(TELEMETRY, repeat)
    try:
        series = time_series_of(samples, read_ticks(watched) if _exists(watched) else ())
    except InputError as error:
        tell(error)  # without what was watched the node still counts
        series = time_series_of(samples)
    clock = None
    try:
        clock = read_clock(directory, node, attempt, of_repeat(READY_FILE, repeat))
    except InputError as error:
        tell(error)
    return series, clock


def _believed(
    directory: Path,
    run: RunRecord,
    node: str,
    result: NodeResult,
    tell: Callable[[InputError], str],
    slo: Slo | None,
) -> tuple[Measurement, ...]:
    """Return what `_later` yields; why a node failed is not hidden by steps of it that are not to be believed."""
    try:
        return tuple(_later(directory, run, node, result, tell, slo))
    except InputError as error:
        if result.status == "complete":
            raise
        tell(error)
        return ()


def _later(
    directory: Path,
    run: RunRecord,
    node: str,
    result: NodeResult,
    tell: Callable[[InputError], str],
    slo: Slo | None,
) -> Iterator[Measurement]:
    """Yield the repeats of a complete result from the second on, or the steps of a sweep, however that ended.

    Raises InputError where one is not to be believed.
    """
    if result.status != "complete" and run.nodes[node].profile.sweep is None:
        return
    check_repeats(result, run.nodes[node], node)
    for number in range(2, len(result.repeats) + 2):
        as_only, name = repeat_of(result, number), of_repeat(SAMPLES, number)
        samples = read_columns(directory / name)
        try:
            metrics = measured(samples, run.nodes[node], as_only.loadgen, as_only.metrics)
            check_loadgen(as_only, directory, of_repeat("", number))
            if result.status == "complete":
                check_claims(as_only, samples, metrics)
        except InputError as error:
            raise InputError(f"{node}, repeat {number}: {error}") from None
        series, clock = _context(directory, node, result.attempt, samples, number, tell)
        good = _goodput(directory, as_only, metrics, samples, slo, of_repeat("", number))
        yield Measurement(as_only, metrics, Times.of(samples, metrics), series, clock, good, name)


def _goodput(
    directory: Path,
    result: NodeResult | None,
    metrics: Metrics | None,
    samples: Columns,
    slo: Slo | None,
    prefix: str = "",
) -> Goodput | None:
    """Return the goodput of a complete measurement; None also where neither `slo` nor the profile has limits."""
    if result is None or metrics is None or result.status != "complete":
        return None
    if slo is None:
        server = result.loadgen is not None and result.loadgen.scenario == "Server"
        slo = limits_of(result.resolved.profile, read_limits(directory, prefix) if server else None)
    return goodput(samples, metrics, slo) if slo else None


def _earlier(
    directory: Path, run: RunRecord, node: str, tell: Callable[[InputError], str], slo: Slo | None
) -> Iterator[Measurement]:
    """Yield the steps of a sweep that earlier attempts completed, the first attempt's first."""
    if run.nodes[node].profile.sweep is None:
        return
    for aside in sorted(directory.glob(f"{ATTEMPT}*"), key=lambda path: (len(path.name), path.name)):
        try:
            result, metrics, samples = _read_result(aside, run, node)
            if result is None or result.load is None:
                continue
            series, clock = _context(aside, node, result.attempt, samples, 1, tell)
            good = _goodput(aside, result, metrics, samples, slo)
            found = [Measurement(repeat_of(result, 1), metrics, Times.of(samples, metrics), series, clock, good)]
            found += _later(aside, run, node, result, tell, slo)
        except InputError as error:
            tell(error)
            continue
        yield from (replace(one, samples=f"{aside.name}/{one.samples}") for one in found)


def one_line(failure: Failure) -> str:
    """Return stage and reason on one line."""
    return f"{failure.stage}: {' '.join(failure.reason.split())}"[:MAX_REASON]


def read_failure(path: Path, node: str) -> Failure | None:
    """Return why the controller has no complete result of a node; None: it says nothing. Raises InputError."""
    if not _exists(path):
        return None
    failure = read_record(path, Failure)
    if failure.node != node:
        raise InputError(f"{path}: it is of the node {failure.node}, not of {node}.")
    return failure


def read_clock(directory: Path, node: str, attempt: int, name: str) -> ReadyNode | None:
    """Return what the controller measured of the node's clock; nothing for a run by hand or of one node.

    A result that a later attempt fetched has its clock with what else is kept of the attempt that measured it.
    """
    for path in (directory / name, directory / f"{ATTEMPT}{attempt}" / name):
        if not _exists(path):
            continue
        clock = read_record(path, ReadyNode)
        if clock.node != node:
            raise InputError(f"{path}: it is of the node {clock.node}, not of {node}.")
        if clock.attempt == attempt:
            return clock
    return None


def _read_result(directory: Path, run: RunRecord, node: str) -> tuple[NodeResult | None, Metrics | None, Columns]:
    """Return the result, the metrics that the samples give, and these. Raises InputError for what is not believed."""
    paths = sorted(directory.glob("mlperf_datacenter_*.json"))
    if not paths:
        return None, None, Columns.of(())
    if len(paths) > 1:
        raise InputError(f"{directory}: more than one result: {_names(paths)}.")
    result = read_record(paths[0], NodeResult)
    try:
        check_origin(result, run, node)
        kept = result.status == "complete" or _exists(directory / SAMPLES)
        # A run for accuracy, or of the hardware alone, has no samples of a measurement.
        kept = kept and result.resolved.profile.measures_queries
        samples = read_columns(directory / SAMPLES) if kept else Columns.of(())
        metrics = measured(samples, run.nodes[node], result.loadgen, result.metrics)
        if result.status == "complete":
            check_loadgen(result, directory)
            check_claims(result, samples, metrics)
            if result.solo is not None:
                check_solo(result.solo, read_columns(directory / f"{SOLO}{SAMPLES}"), run.nodes[node])
    except InputError as error:
        where = "" if str(error).startswith(str(directory)) else f"{paths[0]}: "
        raise InputError(f"{where}{error}") from None
    return result, metrics if kept else None, samples


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
