"""Where a run's files lie: results/<run id>/, opened once, never reused."""

from __future__ import annotations

import getpass
import os
import platform
import re
import secrets
import shutil
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from benchmark import __version__
from benchmark.canonical import canonical_sha256
from benchmark.errors import InputError
from benchmark.files import read_record, write_record
from benchmark.records import (
    SCHEMA_VERSION,
    Attempt,
    Code,
    Controller,
    GroupPart,
    Name,
    Owner,
    Record,
    RunRecord,
    ServerPlace,
    System,
)
from benchmark.settings import ResolvedSettings
from benchmark.unwritable import on_controller

RUN_FILE = "run.json"
ORDER = "order.json"
FAILURE = "failure.json"
# What a node measured, and that of the driver: a run writes it before anything else.
NODE_RESULTS = "mlperf_datacenter_*.json"
RESULT_FILE = "aggregated_datacenter_results.json"
REPORT_FILE = "report.html"
SUMMARY_FILE = "benchmark_summary.txt"
# Beside the runs: the page over all of them.
PAGE_FILE = "index.html"
NODES = "nodes"
# The name of a node becomes that of a directory in there.
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Of a run and of each node: what an earlier attempt left, a directory for each.
ATTEMPT = "attempt-"
PROGRAM = "llm-datacenter-benchmark"
# On the node, in its run's directory: it is ready to measure, and what it is; when to start, by its own wall clock in
# nanoseconds.
READY = "ready"
GO = "go"
# What a node says in the place of what it is, where it takes part in no further measurement.
OVER = "over"
# The same of its turn to measure alone: it may, and it has.
TURN = "turn"
TURN_OVER = "turn_over"
# A named pipe that is there while the node waits for a word; a byte in it means that one has been put.
BELL = "bell"
# Of a system of several nodes. A server writes LISTENS once it holds its port and waits for LOAD; it writes SERVES once
# it is ready, and ends with WINDOWS, those in which it was measured. The driver waits for TRY, writes in TRIED which
# ports it cannot reach, and waits for SERVING: the servers that are ready.
LISTENS, LOAD, SERVES, WINDOWS = "listens", "load", "serves", "windows"
TRY, TRIED, SERVING = "try", "tried", "serving"
# Of a group of nodes that serve one copy of a model, these too: a node writes LISTENS, waits for TRY, which says where
# the others listen, writes in TRIED whom it cannot reach, and waits for LOAD. All but the head end with WINDOWS, which
# the head writes in MEASURED before it ends its own server.
MEASURED = "measured"
# When the server that a run started ended, or was told to: nanoseconds of the node's clock.
SERVER_ENDED = "server_ended"
# How a result begins to say why it is not whole, where a signal ended its run; its name follows.
STOPPED = "The run was stopped by"


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
    owner: Owner | None = Field(None, description="whose the run's directory on the node is; absent: anybody's")
    code: Code | None = Field(None, description="that is to measure: a node with another refuses; absent: any")
    environments: dict[Name, Name] = Field(
        default_factory=dict,
        description="fingerprints of what the node's environments hold, by the role that made them",
    )
    wait_s: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how long a node that is ready waits for the time of its start; absent: it starts at once"
    )
    solo: bool = Field(False, description="whether it measures alone first, when it is its turn")
    limit_s: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="time limit on the node, with room for waiting, all turns and repeats; absent: benchmark_timeout_s",
    )
    first_step: Annotated[int, Field(ge=1)] = Field(
        1, description="of a sweep: those before it were measured in earlier attempts"
    )
    burst_qps: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="of a sweep of rates: queries per second that a burst reached in an earlier attempt; absent: it is "
        "to be measured",
    )
    measurements: Annotated[int, Field(ge=1)] = Field(
        1, description="of this attempt at most: repeats, or steps that are left"
    )
    serves: ServerPlace | None = Field(None, description="where it serves, and measures nothing; absent: it measures")
    drives: tuple[ServerPlace, ...] = Field((), description="the servers that it measures; empty: the node itself")
    group: GroupPart | None = Field(
        None, description="with which nodes it serves one copy of the model; absent: the node is one by itself"
    )


def open_run(
    resolved: Mapping[str, ResolvedSettings],
    *,
    command: str,
    command_hides: Collection[str] = (),
    versions: Mapping[str, str] | None = None,
    hosts: Mapping[str, str] | None = None,
    inventory: Collection[str] = (),
    on_command_line: Collection[str] = (),
    controller: Controller | None = None,
    code: Code | None = None,
    token: str = "",
    system: System | None = None,
) -> tuple[str, Path]:
    """Make the directory of a new run, write run.json, point `latest` at it; return run id and absolute directory.

    The run id is the UTC time, a short hash of the resolved settings, and a random part: two controllers may open a run
    in the same second with the same settings, and meet on a node. `token` is what the run's directories on nodes are
    known by.
    Raises InputError where the directory cannot be made.
    """
    results = Path(next(iter(resolved.values())).settings.benchmark_results_dir).expanduser().absolute()
    now = datetime.now(timezone.utc)
    digest = canonical_sha256({node: value.model_dump(mode="json") for node, value in resolved.items()})[:8]
    stem = f"{now:%Y%m%dT%H%M%SZ}-{digest}"
    directory: Path | None = None
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
            inventory=tuple(inventory),
            on_command_line=tuple(sorted(on_command_line)),
            token=token,
            system=system,
            attempts=(Attempt(at=at, command=command[:4000], nodes=tuple(resolved), controller=controller, code=code),),
        )
        write_record(directory / RUN_FILE, record)
        point_latest(results, run_id)
    except OSError as error:
        if directory is not None:  # no run, and nobody would ever look at it
            shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise InputError(f"benchmark_results_dir: {error.filename} is there, and is no directory.") from error
        raise InputError(f"benchmark_results_dir: {on_controller(error, results)}") from error
    return run_id, directory


def _take(results: Path, stem: str) -> tuple[str, Path]:
    while True:
        run_id = f"{stem}-{secrets.token_hex(3)}"
        try:
            (results / run_id).mkdir()
        except FileExistsError:
            continue
        return run_id, results / run_id


def user_name() -> str:
    """Return who runs this; empty where the user has no name on this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def point_latest(results: Path, run_id: str) -> None:
    """Let `results/latest` lead to the run."""
    beside = results / f".latest.{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(run_id)
    beside.replace(results / "latest")


def read_run(run_dir: Path) -> RunRecord:
    """Return what was asked. Raises InputError where the directory is not a run's."""
    try:
        there = (run_dir / RUN_FILE).is_file()
    except OSError as error:  # another user's directory that may not be entered
        raise InputError(f"{run_dir / RUN_FILE}: {error.strerror}.") from None
    if not there:
        raise InputError(f"{run_dir} is not a run: there is no {RUN_FILE} in it.")
    run = read_record(run_dir / RUN_FILE, RunRecord)
    for node in run.nodes:
        if not NODE_NAME.fullmatch(node):
            raise InputError(f"{run_dir / RUN_FILE}: {node!r} is not a node's name.")
    return run
