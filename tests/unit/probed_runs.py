"""Stored runs of the profile hardware, made by hand, for whatever holds one against another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.cluster.aggregate import aggregate
from benchmark.files import write_record
from benchmark.records.probes import HardwareProbes
from benchmark.rundir import RESULT_FILE
from tests.unit.building import add_probed, hardware, make_run


def store(results: Path, day: int, nodes: Mapping[str, HardwareProbes | None], **settings: Any) -> Path:
    """Keep a run of that day with its cluster's result; a node of None was interrupted. Return its directory."""
    run_id = f"202611{day:02}T100000Z-0123abcd"
    directory = results / run_id
    directory.mkdir(parents=True)
    resolved = hardware(**settings)
    make_run(directory, dict.fromkeys(nodes, resolved), run_id=run_id, at=f"2026-11-{day:02}T10:00:00+00:00")
    for node, found in nodes.items():
        ended = {} if found else {"status": "interrupted", "stage": "probes", "verdict": None}
        add_probed(directory, node, resolved, found, run_id=run_id, **ended)
    write_record(directory / RESULT_FILE, aggregate(directory))
    return directory
