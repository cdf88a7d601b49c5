"""The tree of the endpoints format: ORG/RUN/results/SYSTEM/MODEL/rN, a directory for each point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from benchmark import DISCLAIMER
from benchmark.cluster.aggregate import Gathered
from benchmark.cluster.export.endpoints import Curve, curves_of, model_directory, point, result_summary, system_desc
from benchmark.cluster.submission.system_file import SystemFile, read_system, write_template
from benchmark.cluster.submission.systems import host_interconnect
from benchmark.cluster.submission.tree import new_tree
from benchmark.errors import InputError
from benchmark.text.columns import clean

# Takes the place of an organization: this is not a submission.
NOBODY = "unverified"
NOT_OFFICIAL = (
    'mlperf-viz calls every tree "Official" and "verified by MLCommons", and a tree cannot override that: it is not '
    "true of this one. Each curve's organization says so; do not pass its charts on without that."
)
NOT_KNOWN = (
    "No program can detect memory modules, network cards, file system and availability, which MLCommons' checker "
    "requires: give them with --system FILE. mlperf-viz does not need them."
)


def write_endpoints(output: Path, gathered: Gathered, system: Path | None) -> list[str]:
    """Write the tree at `output`, which must not exist; return notes on it, a sentence each.

    `system`: the file of a user's answers; if it does not exist, a template is written and InputError raised.
    InputError is also raised if no node has a point, or the tree cannot be written.
    """
    curves, said = curves_of(gathered)
    answers = _answers(system, curves) if system else None
    with new_tree(output) as root:
        top = root / NOBODY / gathered.run.run_id
        _write(top / "README.md", _readme(gathered, said))
        for curve in curves:
            # A node already has a directory of its name in the run.
            directory = top / "results" / curve.node / model_directory(curve.model)
            for in_flight, measured in curve.points.items():
                to = directory / f"r{in_flight}"
                _write(to / "point.yaml", yaml.safe_dump(point(curve, in_flight, answers), sort_keys=False))
                _write(to / "result_summary.json", _json(result_summary(measured)))
                _write(to / "system_desc.json", _json(system_desc(curve, in_flight, answers)))
    points = sum(len(curve.points) for curve in curves)
    return [
        f"{output}: points {points}, nodes {len(curves)}; {DISCLAIMER}.",
        *map(clean, said),
        NOT_OFFICIAL,
        *([] if answers else [NOT_KNOWN]),
    ]


def _answers(path: Path, curves: list[Curve]) -> SystemFile:
    kinds = {(one.environment.cpu, tuple(gpu.name for gpu in one.environment.gpus)) for one in curves}
    if len(kinds) > 1:
        raise InputError(f"--system: {path} describes one kind of node, and this run has {len(kinds)}: leave it out.")
    if not path.exists():
        write_template(path)
        raise InputError(f"{path} was written: fill in its answers about the system, then run the command again.")
    seen = curves[0].environment
    return read_system(path, len(seen.gpus), bool(host_interconnect(seen)))


def _readme(gathered: Gathered, said: list[str]) -> str:
    lines = [
        f"# {gathered.run.run_id}",
        "",
        f"**{DISCLAIMER}.** Written by `python3 -m benchmark export --format endpoints` from a run of the profile "
        f"{gathered.result.profile}.",
        "Each node is a system; N in `rN` is how many queries were in flight on it. Rates are of all answers, from "
        "the first query to the last token.",
        "",
        NOT_OFFICIAL,
        *(["", *(f"- {clean(sentence)}" for sentence in said)] if said else []),
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
