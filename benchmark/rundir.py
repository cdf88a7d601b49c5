"""Where a run's files lie: results/<run id>/, opened once, never reused."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from benchmark import __version__
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import SCHEMA_VERSION, Attempt, Controller, Name, Record, RunRecord
from benchmark.settings import NODE_NAME, ResolvedSettings, canonical_sha256

RUN_FILE = "run.json"
ORDER = "order.json"
FAILURE = "failure.json"
RESULT_FILE = "aggregated_datacenter_results.json"
NODES = "nodes"
# Of a run and of each node: what an earlier attempt left, a directory for each.
ATTEMPT = "attempt-"
PROGRAM = "llm-datacenter-benchmark"
# On the node, in its run's directory: it is ready to measure, and what it is; when to start, by its own wall clock in
# nanoseconds.
READY = "ready"
GO = "go"
# The same of its turn to measure alone: it may, and it has.
TURN = "turn"
TURN_OVER = "turn_over"
# A named pipe that is there while the node waits for a word; a byte in it means that one has been put.
BELL = "bell"


def of_repeat(name: str, number: int) -> str:
    """Return what a file is called that belongs to a repeat; the first one's have the plain names."""
    return name if number == 1 else f"repeat{number}_{name}"


class RunOrder(Record):
    """`order.json`: what the controller asks of one node."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: Name
    node: Name
    attempt: Annotated[int, Field(ge=1)] = 1
    resolved: ResolvedSettings
    wait_s: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how long a node that is ready waits for the time of its start; absent: it starts at once"
    )
    solo: bool = Field(False, description="whether it measures alone first, when it is its turn")
    limit_s: Annotated[int, Field(ge=1)] | None = Field(
        None, description="time limit on the node that has room for all turns and repeats; absent: benchmark_timeout_s"
    )


def open_run(
    resolved: Mapping[str, ResolvedSettings],
    *,
    command: str,
    command_hides: Collection[str] = (),
    versions: Mapping[str, str] | None = None,
    hosts: Mapping[str, str] | None = None,
    on_command_line: Collection[str] = (),
    controller: Controller | None = None,
) -> tuple[str, Path]:
    """Make the directory of a new run, write run.json, point `latest` at it; return run id and absolute directory.

    The run id is the UTC time and a short hash of the resolved settings; a taken one gets a suffix.
    Raises InputError where the directory cannot be made.
    """
    results = Path(next(iter(resolved.values())).settings.benchmark_results_dir).expanduser().absolute()
    now = datetime.now(timezone.utc)
    digest = canonical_sha256({node: value.model_dump(mode="json") for node, value in resolved.items()})[:8]
    stem = f"{now:%Y%m%dT%H%M%SZ}-{digest}"
    try:
        results.mkdir(parents=True, exist_ok=True)
        run_id, directory = _take(results, stem)
        (directory / NODES).mkdir()
        at = now.isoformat(timespec="seconds")
        record = RunRecord(
            run_id=run_id,
            created_at=at,
            command=command,
            command_hides=tuple(command_hides),
            versions={PROGRAM: __version__, "python": platform.python_version(), **(versions or {})},
            nodes=dict(resolved),
            hosts=dict(hosts or {}),
            on_command_line=tuple(sorted(on_command_line)),
            attempts=(Attempt(at=at, command=command[:4000], nodes=tuple(resolved), controller=controller),),
        )
        write_record(directory / RUN_FILE, record)
        point_latest(results, run_id)
    except OSError as error:
        raise InputError(
            f"benchmark_results_dir: {error.filename or results} cannot be written: {error.strerror}."
        ) from error
    return run_id, directory


def _take(results: Path, stem: str) -> tuple[str, Path]:
    number = 1
    while True:
        run_id = stem if number == 1 else f"{stem}-{number}"
        try:
            (results / run_id).mkdir()
        except FileExistsError:
            number += 1
            continue
        return run_id, results / run_id


def point_latest(results: Path, run_id: str) -> None:
    """Let `results/latest` lead to the run."""
    beside = results / f".latest.{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(run_id)
    beside.replace(results / "latest")


def read_run(run_dir: Path) -> RunRecord:
    """Return what was asked. Raises InputError where the directory is not a run's."""
    if not (run_dir / RUN_FILE).is_file():
        raise InputError(f"{run_dir} is not a run: there is no {RUN_FILE} in it.")
    run = read_record(run_dir / RUN_FILE, RunRecord)
    for node in run.nodes:
        if not NODE_NAME.fullmatch(node):
            raise InputError(f"{run_dir / RUN_FILE}: {node!r} is not a node's name.")
    return run
