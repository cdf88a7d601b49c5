"""Read the files of a system: what the driver measured, and the share of each node that served.

The driver's files are checked against each other like a node's. A node that served has no samples of its own: its
figures are of the driver's samples that it answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import metrics
from benchmark.cluster.names import natural
from benchmark.cluster.one_system import run_of_driver
from benchmark.cluster.repeats import median_of
from benchmark.cluster.results.load import (
    TELEMETRY,
    LoadedNode,
    NodeFiles,
    Times,
    load_node,
    read_clock,
    read_failure,
)
from benchmark.cluster.results.time_series import TimeSeries, time_series_of
from benchmark.cluster.results.verify import check_origin
from benchmark.columns import Columns
from benchmark.errors import InputError
from benchmark.files import read_record, read_samples, read_ticks
from benchmark.fleet.rendezvous import READY_FILE
from benchmark.records import (
    DRIVER,
    Metrics,
    NodeResult,
    Repeats,
    RunRecord,
    Sample,
    ServedShare,
    Slo,
    System,
    Telemetry,
)
from benchmark.rundir import FAILURE, NODE_RESULTS, NODES, of_repeat

# Most distinct errors of one node that are kept.
MOST_ERRORS = 5


@dataclass(frozen=True)
class LoadedSystem:
    """A system's driver, in the repeat that stands for the run and with all repeats, and the nodes that served."""

    driver: LoadedNode
    whole: LoadedNode
    repeats: Repeats | None
    nodes: tuple[LoadedNode, ...]
    shares: Mapping[str, ServedShare] = field(default_factory=dict)


def load_system(run_dir: Path, run: RunRecord, system: System, slo: Slo | None = None) -> LoadedSystem:
    """Return what a system's files say. Never raises because of their content: problems are reported in the result."""
    whole = load_node(run_dir, run_of_driver(run, system), DRIVER, slo, run_dir / DRIVER)
    (driver,), repeats = median_of([whole])
    number = repeats.chosen if repeats else 1
    samples = _samples(run_dir, driver)
    place_of = {name: place for place, name in enumerate(_asked(driver))}
    shares: dict[str, ServedShare] = {}
    nodes = []
    for name in sorted(run.nodes, key=natural):
        own = _own(samples, place_of, name)
        if driver.counted and name in place_of:
            shares[name] = _share(own, samples)
        nodes.append(_served(run_dir, run, name, driver, number, own))
    return LoadedSystem(driver, whole, repeats, tuple(nodes), shares)


def _samples(run_dir: Path, driver: LoadedNode) -> list[Sample]:
    # With errors, which columns do not hold.
    return read_samples(run_dir / DRIVER / driver.samples) if driver.counted else []


def _asked(driver: LoadedNode) -> list[str]:
    """Return the nodes in the order of the driver's URLs."""
    details: Mapping[str, Any] = driver.result.engine.details if driver.result and driver.result.engine else {}
    servers = details.get("servers")
    return [str(one.get("node")) for one in servers if isinstance(one, dict)] if isinstance(servers, list) else []


def _own(samples: list[Sample], place_of: Mapping[str, int], name: str) -> list[Sample]:
    """Return the samples that were sent to a node: all of them if it is the only one."""
    if name not in place_of:
        return []
    return [one for one in samples if len(place_of) == 1 or one.server == place_of[name]]


def _share(own: list[Sample], samples: list[Sample]) -> ServedShare:
    completed = sum(one.error is None for one in samples)
    errors = Counter(one.error for one in own if one.error is not None)
    return ServedShare(
        share=sum(one.error is None for one in own) / completed if completed else None,
        errors=dict(errors.most_common(MOST_ERRORS)),
    )


def _served(run_dir: Path, run: RunRecord, name: str, driver: LoadedNode, number: int, own: list[Sample]) -> LoadedNode:
    """Return a node that served, with the figures of its own share."""
    directory = run_dir / NODES / name
    files = NodeFiles(directory, run, name, None, run_dir)
    failure = None
    try:
        failure = read_failure(directory / FAILURE, name)
    except InputError as error:
        files.tell(error)
    try:
        result = result_of_server(directory, run, name)
    except InputError as error:
        return LoadedNode(name, failure=failure, refused=files.tell(error), problems=tuple(files.problems))
    if result is None or result.status != "complete" or not driver.counted or driver.result is None:
        # A node's share counts only together with the driver's measurement.
        incomplete = result is not None and result.status != "complete"
        return LoadedNode(name, result if incomplete else None, failure=failure, problems=tuple(files.problems))
    columns = Columns.of(own)
    share = _metrics(columns, driver)
    window = result.served[number - 1] if number <= len(result.served) else None
    telemetry = window.telemetry if window else None
    result = result.model_copy(
        update={
            "window": window.window if window else None,
            "telemetry": _with_ratios(telemetry, share),
            "target_qps": driver.result.target_qps,
            "load": driver.result.load,
            "serving": None,
        }
    )
    clock = None
    try:
        clock = read_clock(directory, name, result.attempt, READY_FILE)
    except InputError as error:
        files.tell(error)
    return LoadedNode(
        node=name,
        result=result,
        metrics=share,
        times=Times.of(columns, share),
        time_series=_series(directory / of_repeat(TELEMETRY, number), columns, files),
        failure=failure,
        clock=clock,
        problems=tuple(files.problems),
        samples="",
    )


def result_of_server(directory: Path, run: RunRecord, name: str) -> NodeResult | None:
    """Return the result of a node without samples of its own, if there is one. Raises InputError."""
    paths = sorted(directory.glob(NODE_RESULTS))
    if not paths:
        return None
    if len(paths) > 1:
        raise InputError(f"{directory}: more than one result: {', '.join(path.name for path in paths)}.")
    result = read_record(paths[0], NodeResult)
    try:
        check_origin(result, run, name)
        missing = [what for what in ("environment", "engine") if getattr(result, what) is None]
        if result.status == "complete" and missing:
            raise InputError(f"it claims to be complete, but has no {' and no '.join(missing)}.")
    except InputError as error:
        raise InputError(f"{paths[0]}: {error}") from None
    return result


def _metrics(own: Columns, driver: LoadedNode) -> Metrics:
    """Return a share's own figures, from the driver's samples: its rates are over its own time."""
    least = driver.result.resolved.profile.generation.min_new_tokens if driver.result else 0
    # Renumbered: the share has only part of the whole schedule.
    numbered = replace(own, index=np.arange(len(own), dtype=np.int64))
    return metrics.compute(numbered, len(own), None, least)


def _with_ratios(telemetry: Telemetry | None, share: Metrics) -> Telemetry | None:
    """Return a node's telemetry, with its joules per token and query that it answered."""
    if telemetry is None or telemetry.energy is None:
        return telemetry
    ratios = metrics.per_joule(telemetry.energy.joules, [share])
    return telemetry.model_copy(update={"energy": telemetry.energy.model_copy(update=ratios)})


def _series(path: Path, own: Columns, files: NodeFiles) -> TimeSeries | None:
    try:
        return time_series_of(own, read_ticks(path) if path.exists() else ())
    except InputError as error:
        files.tell(error)
    return time_series_of(own)
