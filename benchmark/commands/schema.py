"""`python3 -m benchmark schema`: write the JSON schemas of all files of a run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from benchmark.cluster.baseline import Baselines
from benchmark.errors import EXIT_VALID, InputError
from benchmark.files import write_atomic
from benchmark.records import (
    AgreedStart,
    ClusterResult,
    Comparison,
    Failure,
    History,
    Interruption,
    NodeResult,
    ReadyNode,
    RunList,
    RunRecord,
    RunVerdict,
    Sample,
    Tick,
)
from benchmark.rundir import RunOrder

DIRECTORY = Path(__file__).parents[2] / "docs" / "schema"
# Schema's file name -> record, and the file that it describes.
SCHEMAS: Mapping[str, tuple[type[BaseModel], str]] = {
    "run": (RunRecord, "run.json"),
    "aggregated_datacenter_results": (ClusterResult, "aggregated_datacenter_results.json"),
    "verdict": (RunVerdict, "verdict.json, and of the message of benchmark_notify"),
    "interrupted": (Interruption, "interrupted.json"),
    "start": (AgreedStart, "start.json"),
    "order": (RunOrder, "order.json, on the node"),
    "node_result": (NodeResult, "nodes/<node>/mlperf_datacenter_<node>_<time>.json"),
    "sample": (Sample, "a line of nodes/<node>/samples.jsonl"),
    "tick": (Tick, "a line of nodes/<node>/telemetry.jsonl"),
    "ready": (ReadyNode, "nodes/<node>/ready.json"),
    "failure": (Failure, "nodes/<node>/failure.json"),
    "baselines": (Baselines, "results/baselines.json"),
    "comparison": (Comparison, "compare --json"),
    "history": (History, "history --json"),
    "list": (RunList, "list --json"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `schema`."""
    parser.add_argument("--out", type=Path, default=DIRECTORY, metavar="DIR", help="default: docs/schema")


def main(arguments: argparse.Namespace) -> int:
    """Write the schemas; return 0. Raises InputError."""
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, text in schemas().items():
            write_atomic(arguments.out / name, text)
    except OSError as error:
        raise InputError(f"{arguments.out}: cannot be written: {error.strerror}.") from error
    print(f"{len(SCHEMAS)} schemas in {arguments.out}")
    return EXIT_VALID


def schemas() -> dict[str, str]:
    """Return file name -> schema as text."""
    return {f"{name}.schema.json": _text(record, where) for name, (record, where) in SCHEMAS.items()}


def _text(record: type[BaseModel], where: str) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"of {where}; made by python3 -m benchmark schema",
        **record.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
