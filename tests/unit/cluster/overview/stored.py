"""Many stored runs: a few that were summarised, and copies of them with other ids, times and figures."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmark.cluster.aggregate import aggregate
from benchmark.cluster.interruption import keep_interruption
from benchmark.files import write_record
from benchmark.rundir import RESULT_FILE, RUN_FILE
from tests.unit.building import add_node, asked, hardware, make_run, probes
from tests.unit.building import add_probed as add_hardware
from tests.unit.cluster.report import runs

FIRST = datetime(2025, 1, 1, 10, tzinfo=timezone.utc)
SLOWER = "gpu-002"
"""From the SHIFT-th newest run of the profile quick on, this node is a tenth slower."""
SHIFT = 4
Content = tuple[dict[str, Any], dict[str, Any] | None]


def run_id(number: int) -> str:
    """Return the id of the run on that day."""
    return f"{FIRST + timedelta(days=number):%Y%m%dT%H%M%SZ}-0123abcd-{number:06x}"


def _quick(directory: Path) -> None:
    runs.cluster(directory, 3, every_ms=2000)


def _interrupted(directory: Path) -> None:
    make_run(directory, {"gpu-001": asked(3), "gpu-004": asked(3)})
    add_node(directory, "gpu-001", asked(3), [1700.0] * 3)
    keep_interruption(directory, "SIGINT")


def _hardware(directory: Path) -> None:
    make_run(directory, dict.fromkeys(("gpu-001", "gpu-002"), hardware()))
    for node in ("gpu-001", "gpu-002"):
        add_hardware(directory, node, hardware(), probes())


_MADE: dict[str, Callable[[Path], Any]] = {
    "quick": _quick,
    "failed": runs.partly_failed,
    "partial": _interrupted,
    "hardware": _hardware,
}
KINDS = tuple(_MADE)


def patterns(place: Path) -> dict[str, Content]:
    """Return run.json and the cluster result of one run of each kind, and of one that goes on."""
    found: dict[str, Content] = {}
    for name, make in _MADE.items():
        directory = place / name
        directory.mkdir(parents=True)
        make(directory)
        write_record(directory / RESULT_FILE, aggregate(directory))
        found[name] = json.loads((directory / RUN_FILE).read_text()), json.loads((directory / RESULT_FILE).read_text())
    found["running"] = found["quick"][0], None
    return found


def keep(results: Path, number: int, content: Content, pace: float = 1.0) -> Path:
    """Store a copy as the run of that day, with a report; `pace`: of SLOWER."""
    run, result = json.loads(json.dumps(content))
    at = FIRST + timedelta(days=number)
    directory = results / run_id(number)
    directory.mkdir(parents=True)
    run |= {"run_id": directory.name, "created_at": f"{at:%Y-%m-%dT%H:%M:%S}+00:00"}
    (directory / RUN_FILE).write_text(json.dumps(run))
    if result is not None:
        chance = random.Random(number)
        result["run_id"] = directory.name
        for row in result["nodes"]:
            for metric in ("qps", "tokens_per_s") if row["metrics"] else ():
                row["metrics"][metric] *= chance.gauss(1, 0.005) * (pace if row["node"] == SLOWER else 1)
        (directory / RESULT_FILE).write_text(json.dumps(result))
        (directory / "report.html").write_text("<!doctype html><title>a report</title>")
    return directory


def fill(results: Path, count: int, given: dict[str, Content]) -> None:
    """Store so many runs: mostly valid ones, every fifth of another kind; from 20 on the newest goes on."""
    for number in range(count):
        kind = KINDS[number // 5 % 3 + 1] if number % 5 == 4 else "quick"
        kind = "running" if count >= 20 and number == count - 1 else kind
        keep(results, number, given[kind], 0.9 if number >= count - SHIFT - 1 else 1.0)
