"""Read a run's files: each node's on its own, so that a bad one takes nobody else's result with it."""

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
    files_of: str = ""
    """Of a group of nodes: whose files these are; empty: its own."""
    steps: Mapping[float, Measurement] = field(default_factory=dict)
    """Where a step of a sweep was chosen: all of them, by their load."""
    repeats: tuple[LoadedNode, ...] = ()
    """Where a repeat was chosen and all of them are needed: each as if it were the node's only one."""

    @property
    def directory(self) -> str:
        """Where its files are, under the run's nodes/."""
        return self.files_of or self.node

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


def load_node(
    run_dir: Path, run: RunRecord, node: str, slo: Slo | None = None, directory: Path | None = None
) -> LoadedNode:
    """Return what the node's files say. Never raises for their content: what is wrong is reported in the result.

    Goodput is held against `slo`; None: against the profile's own limits. `directory`: where its files are, if not
    under nodes/.
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
    """The files of one attempt at a node, and what is wrong with them as far as they were read."""

    directory: Path
    run: RunRecord
    node: str
    slo: Slo | None
    run_dir: Path
    problems: list[str] = field(default_factory=list)

    def tell(self, error: InputError) -> str:
        """Keep what is wrong, and return it."""
        sentence = str(error).replace(f"{self.run_dir}/", "")
        self.problems.append(sentence)
        return sentence

    def result(self) -> tuple[NodeResult | None, Metrics | None, Columns]:
        """Return the result, the metrics that the samples give, and these.

        Raises InputError for what is not believed.
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
            # A run for accuracy, or of the hardware alone, has no samples of a measurement.
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
        """Return the series and the clock of a measurement; what is wrong with them is reported, and in no total."""
        watched = self.directory / of_repeat(TELEMETRY, repeat)
        try:
            series = time_series_of(samples, read_ticks(watched) if _exists(watched) else ())
        except InputError as error:
            self.tell(error)  # without what was watched the node still counts
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
        """Return the goodput of a complete measurement; None also where neither `slo` nor the profile has limits.

        A step of a sweep is complete that has its load, whatever ended the run later.
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
        """Return what `later` yields; why a node failed is not hidden by steps of it that are not to be believed."""
        try:
            return tuple(self.later(result))
        except InputError as error:
            if result.status == "complete":
                raise
            self.tell(error)
            return ()

    def later(self, result: NodeResult) -> Iterator[Measurement]:
        """Yield the repeats of a complete result from the second on, or the steps of a sweep, however that ended.

        Raises InputError where one is not to be believed.
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
        """Yield the steps of a sweep that earlier attempts completed, the first attempt's first."""
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


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
