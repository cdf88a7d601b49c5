"""All probes of a node: first the node's own, then all GPUs at the same time, then what is between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.records.probes import GpuProbes, HardwareProbes, Measured

# Far more than each takes: a GPU that hangs is named, and the node goes on.
LIMIT_S = 90
ROOT = Path(__file__).resolve().parents[3]


def measure(directory: Path, gpus: int) -> HardwareProbes:
    """Return what the probes found. `directory`: what is read from the disk; `gpus`: how many this run sees."""
    began = time.monotonic()
    notes: list[str] = []
    node = _ended(_start("node", str(directory)), "the node", notes)
    # At the same time: what GPUs share (power, cooling, the links to the host) shows only then.
    started = [_start("gpu", str(index)) for index in range(gpus)]
    each = [_ended(process, f"GPU {index}", notes) for index, process in enumerate(started)]
    between = _ended(_start("gpus"), "between GPUs", notes) if gpus > 1 else {}
    return HardwareProbes(
        node=_figures(node),
        gpus=tuple(
            GpuProbes(index=index, name=one.get("name", ""), uuid=one.get("uuid", ""), figures=_figures(one))
            for index, one in enumerate(each)
        ),
        between_gpus=_figures(between),
        notes=tuple(notes),
        seconds=round(time.monotonic() - began, 3),
    )


def _start(*words: str) -> subprocess.Popen[str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark.node.probes.measuring", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        text=True,
    )


def _ended(process: subprocess.Popen[str], what: str, notes: list[str]) -> Mapping[str, Any]:
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        notes.append(f"{what}: the probes did not end within {LIMIT_S} s.")
        return {}
    lines = out.strip().splitlines()
    if process.returncode or not lines:
        last = (err.strip().splitlines() or ["it printed nothing"])[-1]
        notes.append(f"{what}: the probes ended with exit code {process.returncode}: {last[:300]}")
        return {}
    found: Mapping[str, Any] = json.loads(lines[-1])
    notes += [f"{what}: {note}" for note in found["notes"]]
    return found


def _figures(found: Mapping[str, Any]) -> dict[str, Measured]:
    return {name: Measured(value=value, unit=unit) for name, (value, unit) in found.get("figures", {}).items()}
