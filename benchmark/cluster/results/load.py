"""Read a run's files, each node's separately, so that a bad one does not affect the others."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
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
from benchmark.rundir import ATTEMPT, FAILURE, NODE_RESULTS, NODES, of_repeat

SAMPLES = "samples.jsonl"
TELEMETRY = "telemetry.jsonl"
# Most characters of a failure's reason: a record holds at most 4000.
MAX_REASON = 4000


@dataclass(frozen=True)
class Times:
    """The samples' times in milliseconds: enough for pooling, in a hundredth of the samples' memory."""

    latency_ms: array[float] = field(default_factory=lambda: array("d"))
    ttft_ms: array[float] = field(default_factory=lambda: array("d"))
    tpot_ms: array[float] = field(default_factory=lambda: array("d"))
    ended_s: array[float] = field(default_factory=lambda: array("d"))
    """When each completed sample ended, since the first was issued."""
    tokens: array[float] = field(default_factory=lambda: array("d"))
    """Each completed sample's output tokens."""
    sustained: Sustained = field(default_factory=Sustained)

    @cached_property
    def ascending(self) -> dict[str, array[float]]:
        """The times in ascending order, by the time's name."""
        return {name: doubles(np.sort(getattr(self, name))) for name in ("latency_ms", "ttft_ms", "tpot_ms")}

    @classmethod
    def of(cls, samples: Columns, metrics: Metrics | None = None) -> Times:
        """Return the times of the completed samples, counted from the same point as those of `metrics`."""
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
    """One repeat of a counted node, or one step of a sweep, with the node's result as if it were the only one."""

    result: NodeResult
    metrics: Metrics | None
    times: Times
    time_series: TimeSeries | None
    clock: ReadyNode | None
    goodput: Goodput | None
    samples: str = SAMPLES
    """The directory of its samples, within the node's."""


@dataclass(frozen=True)
class LoadedNode:
    """What is known of one node of the run. `refused`: why its files are rejected."""

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
    """The repeats of a counted node from the second on (the fields above are the first one's); in a sweep, of any node
    that completed steps."""
    earlier: tuple[Measurement, ...] = ()
    """Steps of a sweep that earlier attempts measured."""
    samples: str = SAMPLES
    """The directory of the samples, within the node's."""
    files_of: str = ""
    """For a group of nodes: the node that these files are from; empty: the node itself."""
    steps: Mapping[float, Measurement] = field(default_factory=dict)
    """If a step of a sweep was chosen: all steps, by their load."""
    repeats: tuple[LoadedNode, ...] = ()
    """If a repeat was chosen and all are needed: each repeat as if it were the node's only one."""

    @property
    def directory(self) -> str:
        """The directory of its files, under the run's nodes/."""
        return self.files_of or self.node

    @property
    def counted(self) -> bool:
        """Whether its numbers are part of the totals: its result is complete and not refused."""
        return self.result is not None and self.result.status == "complete"

    @property
    def measured(self) -> bool:
        """Whether it counts and has figures, of queries or probes, that can be compared with another run's."""
        return self.counted and (self.metrics is not None or bool(self.result and self.result.probes))


def unknown_dirs(run_dir: Path, run: RunRecord) -> list[str]:
    """Return a sentence for every entry under nodes/ that belongs to no node of the run."""
    found = (run_dir / NODES).iterdir() if (run_dir / NODES).is_dir() else ()
    names = sorted(path.name for path in found if path.name not in run.nodes and not path.name.startswith("."))
    return [f"{NODES}/{name}: the run has no node of this name; ignored." for name in names]


def load_node(
    run_dir: Path, run: RunRecord, node: str, slo: Slo | None = None, directory: Path | None = None
) -> LoadedNode:
    """Return what the node's files say. Never raises because of their content: problems are reported in the result.

    Goodput is computed for the limits `slo`; None: the profile's own. `directory`: where the files are, if not under
    nodes/.
    """
    files = NodeFiles(directory or run_dir / NODES / node, run, node, slo, run_dir)
    if files.directory.is_symlink():
        refused = files.tell(InputError(f"{files.directory}: a symbolic link; refused."))
        return LoadedNode(node, refused=refused, problems=tuple(files.problems))
    failure = None
    try:
        failure = read_failure(files.directory / FAILURE, node)
    except InputError as error:
        files.tell(error)
    try:
        result, metrics, samples = files.result()
        series, clock = files.context(result.attempt if result else 1, samples)
        good = files.goodput(result, metrics, samples)
        later = files.believed(result) if result else ()
        earlier = tuple(files.earlier())
    except InputError as error:
        return LoadedNode(node, failure=failure, refused=files.tell(error), problems=tuple(files.problems))
    if failure is not None and result is not None and result.status == "complete":
        files.problems.append(f"{node}: its result is complete and counted, though it failed: {one_line(failure)}")
    return LoadedNode(
        node=node,
        result=result,
        metrics=metrics,
        times=Times.of(samples, metrics),
        time_series=series,
        failure=failure,
        clock=clock,
        goodput=good,
        problems=tuple(files.problems),
        later=later,
        earlier=earlier,
    )


@dataclass(frozen=True)
class NodeFiles:
    """The files of one attempt at a node, and the problems found so far."""

    directory: Path
    run: RunRecord
    node: str
    slo: Slo | None
    run_dir: Path
    problems: list[str] = field(default_factory=list)

    def tell(self, error: InputError) -> str:
        """Record a problem, and return it."""
        sentence = str(error).replace(f"{self.run_dir}/", "")
        self.problems.append(sentence)
        return sentence

    def result(self) -> tuple[NodeResult | None, Metrics | None, Columns]:
        """Return the result, the metrics computed from the samples, and the samples.

        Raises InputError if they are rejected.
        """
        paths = sorted(self.directory.glob(NODE_RESULTS))
        if not paths:
            return None, None, Columns.of(())
        if len(paths) > 1:
            raise InputError(f"{self.directory}: more than one result: {_names(paths)}.")
        result, asked = read_record(paths[0], NodeResult), self.run.nodes[self.node]
        try:
            check_origin(result, self.run, self.node)
            kept = result.status == "complete" or _exists(self.directory / SAMPLES)
            # A run only for accuracy, or only of the hardware, has no samples of a measurement.
            kept = kept and result.resolved.profile.measures_queries
            samples = read_columns(self.directory / SAMPLES) if kept else Columns.of(())
            metrics = measured(samples, asked, result.loadgen, result.metrics)
            if result.status == "complete":
                check_loadgen(result, self.directory)
                check_claims(result, samples, metrics)
                if result.solo is not None:
                    check_solo(result.solo, read_columns(self.directory / f"{SOLO}{SAMPLES}"), asked)
        except InputError as error:
            where = "" if str(error).startswith(str(self.directory)) else f"{paths[0]}: "
            raise InputError(f"{where}{error}") from None
        return result, metrics if kept else None, samples

    def context(self, attempt: int, samples: Columns, repeat: int = 1) -> tuple[TimeSeries | None, ReadyNode | None]:
        """Return the series and the clock of a measurement; problems with them are reported, but affect no total."""
        watched = self.directory / of_repeat(TELEMETRY, repeat)
        try:
            series = time_series_of(samples, read_ticks(watched) if _exists(watched) else ())
        except InputError as error:
            self.tell(error)  # without telemetry the node still counts
            series = time_series_of(samples)
        clock = None
        try:
            clock = read_clock(self.directory, self.node, attempt, of_repeat(READY_FILE, repeat))
        except InputError as error:
            self.tell(error)
        return series, clock

    def goodput(
        self, result: NodeResult | None, metrics: Metrics | None, samples: Columns, prefix: str = ""
    ) -> Goodput | None:
        """Return the goodput of a complete measurement; None also if neither `slo` nor the profile has limits.

        A step of a sweep is complete if it has its load, whatever ended the run later.
        """
        if result is None or metrics is None:
            return None
        if result.status != "complete" and (result.resolved.profile.sweep is None or result.load is None):
            return None
        slo = self.slo
        if slo is None:
            server = result.loadgen is not None and result.loadgen.scenario == "Server"
            slo = limits_of(result.resolved.profile, read_limits(self.directory, prefix) if server else None)
        return goodput(samples, metrics, slo) if slo else None

    def believed(self, result: NodeResult) -> tuple[Measurement, ...]:
        """Return what `later` yields; steps of a failed node that are rejected do not hide why it failed."""
        try:
            return tuple(self.later(result))
        except InputError as error:
            if result.status == "complete":
                raise
            self.tell(error)
            return ()

    def later(self, result: NodeResult) -> Iterator[Measurement]:
        """Yield the repeats of a complete result from the second on, or the steps of a sweep, however it ended.

        Raises InputError if one is rejected.
        """
        asked = self.run.nodes[self.node]
        if result.status != "complete" and asked.profile.sweep is None:
            return
        check_repeats(result, asked, self.node)
        for number in range(2, len(result.repeats) + 2):
            as_only, name, prefix = repeat_of(result, number), of_repeat(SAMPLES, number), of_repeat("", number)
            samples = read_columns(self.directory / name)
            try:
                metrics = measured(samples, asked, as_only.loadgen, as_only.metrics)
                check_loadgen(as_only, self.directory, prefix)
                if result.status == "complete":
                    check_claims(as_only, samples, metrics)
            except InputError as error:
                raise InputError(f"{self.node}, repeat {number}: {error}") from None
            series, clock = self.context(result.attempt, samples, number)
            good = self.goodput(as_only, metrics, samples, prefix)
            yield Measurement(as_only, metrics, Times.of(samples, metrics), series, clock, good, name)

    def earlier(self) -> Iterator[Measurement]:
        """Yield the steps of a sweep that earlier attempts completed, first attempt first."""
        if self.run.nodes[self.node].profile.sweep is None:
            return
        for path in sorted(self.directory.glob(f"{ATTEMPT}*"), key=lambda path: (len(path.name), path.name)):
            aside = replace(self, directory=path)
            try:
                result, metrics, samples = aside.result()
                if result is None or result.load is None:
                    continue
                series, clock = aside.context(result.attempt, samples)
                good = aside.goodput(result, metrics, samples)
                found = [Measurement(repeat_of(result, 1), metrics, Times.of(samples, metrics), series, clock, good)]
                found += aside.later(result)
            except InputError as error:
                self.tell(error)
                continue
            yield from (replace(one, samples=f"{path.name}/{one.samples}") for one in found)


def one_line(failure: Failure) -> str:
    """Return stage and reason on one line."""
    return f"{failure.stage}: {' '.join(failure.reason.split())}"[:MAX_REASON]


def read_failure(path: Path, node: str) -> Failure | None:
    """Return why the controller has no complete result of a node; None without a record. Raises InputError."""
    if not _exists(path):
        return None
    failure = read_record(path, Failure)
    if failure.node != node:
        raise InputError(f"{path}: it belongs to the node {failure.node}, not to {node}.")
    return failure


def read_clock(directory: Path, node: str, attempt: int, name: str) -> ReadyNode | None:
    """Return the controller's measurement of the node's clock; None for a run by hand or of one node.

    If a later attempt fetched the result, the clock is among the files of the attempt that measured it.
    """
    for path in (directory / name, directory / f"{ATTEMPT}{attempt}" / name):
        if not _exists(path):
            continue
        clock = read_record(path, ReadyNode)
        if clock.node != node:
            raise InputError(f"{path}: it belongs to the node {clock.node}, not to {node}.")
        if clock.attempt == attempt:
            return clock
    return None


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
