"""The files of a run in results/<run id>/, which is created once and never reused."""

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
# The results of a node and of the driver: a run writes them before anything else.
NODE_RESULTS = "mlperf_datacenter_*.json"
RESULT_FILE = "aggregated_datacenter_results.json"
REPORT_FILE = "report.html"
SUMMARY_FILE = "benchmark_summary.txt"
# Beside the runs: the page over all of them.
PAGE_FILE = "index.html"
NODES = "nodes"
# A node's name is also the name of its directory there.
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Directories of earlier attempts, of a run and of each node.
ATTEMPT = "attempt-"
PROGRAM = "llm-datacenter-benchmark"
# In the run's directory on the node: the node is ready, with its environment; and when to start, by its own wall clock
# in nanoseconds.
READY = "ready"
GO = "go"
# Written instead of the environment if the node takes no further part.
OVER = "over"
# The same for its turn to measure alone: it may start, and it has finished.
TURN = "turn"
TURN_OVER = "turn_over"
# A named pipe that exists while the node waits for a file; a byte in it means that one has been written.
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
# When the server that a run started ended, or was asked to: nanoseconds of the node's clock.
SERVER_ENDED = "server_ended"
# How the reason of an incomplete result begins if a signal ended its run; the signal's name follows.
STOPPED = "The run was stopped by"


def of_repeat(name: str, number: int) -> str:
    """Return the name of a repeat's file; the first repeat's files have the plain names."""
    return name if number == 1 else f"repeat{number}_{name}"


class RunOrder(Record):
    """`order.json`: the controller's order to one node."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: Name
    node: Name
    attempt: Annotated[int, Field(ge=1)] = 1
    resolved: ResolvedSettings
    owner: Owner | None = Field(None, description="owner of the run's directory on the node; absent: anybody")
    code: Code | None = Field(None, description="the code to measure with: a node with other code refuses; absent: any")
    environments: dict[Name, Name] = Field(
        default_factory=dict,
        description="fingerprints of the node's environments, by the role that made them",
    )
    wait_s: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how long a ready node waits for its start time; absent: it starts at once"
    )
    solo: bool = Field(False, description="whether it first measures alone, in its turn")
    limit_s: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="time limit on the node, with room for waiting, all turns and repeats; absent: benchmark_timeout_s",
    )
    first_step: Annotated[int, Field(ge=1)] = Field(
        1, description="first step of a sweep; earlier ones were measured in earlier attempts"
    )
    burst_qps: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="of a sweep of rates: queries per second that a burst reached in an earlier attempt; absent: it is "
        "to be measured",
    )
    measurements: Annotated[int, Field(ge=1)] = Field(
        1, description="most measurements of this attempt: repeats, or remaining steps"
    )
    serves: ServerPlace | None = Field(None, description="where it serves, without measuring; absent: it measures")
    drives: tuple[ServerPlace, ...] = Field((), description="the servers that it measures; empty: the node itself")
    group: GroupPart | None = Field(
        None, description="the nodes with which it serves one copy of the model; absent: none"
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
        if directory is not None:  # it is not a run, and would only be left behind
            shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise InputError(f"benchmark_results_dir: {error.filename} exists, but is not a directory.") from error
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
    """Return the user's name; empty if the user has none on this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def point_latest(results: Path, run_id: str) -> None:
    """Point `results/latest` at the run."""
    beside = results / f".latest.{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(run_id)
    beside.replace(results / "latest")


def read_run(run_dir: Path) -> RunRecord:
    """Return the run's record. Raises InputError if the directory is not a run's."""
    try:
        there = (run_dir / RUN_FILE).is_file()
    except OSError as error:  # another user's directory without access
        raise InputError(f"{run_dir / RUN_FILE}: {error.strerror}.") from None
    if not there:
        raise InputError(f"{run_dir} is not a run: it has no {RUN_FILE}.")
    run = read_record(run_dir / RUN_FILE, RunRecord)
    for node in run.nodes:
        if not NODE_NAME.fullmatch(node):
            raise InputError(f"{run_dir / RUN_FILE}: {node!r} is not a node's name.")
    return run
