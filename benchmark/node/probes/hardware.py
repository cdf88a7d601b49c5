"""All probes of a node: first the node's own, then all GPUs at the same time, then what is between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import benchmark
from benchmark.errors import BenchmarkError
from benchmark.node.model.load import find_snapshot
from benchmark.profiles import Profile
from benchmark.records.probes import GpuProbes, HardwareProbes, Measured
from benchmark.served import ENDPOINT
from benchmark.settings import Settings

# Far more than each takes: a GPU that hangs is named, and the node goes on.
LIMIT_S = 90
BESIDE_A_SERVER = "The GPUs were not probed: a server that runs already has them."
# What a process starts with is where this package lies, installed or not.
ROOT = Path(benchmark.__file__).parents[1]


def probe_hardware(directory: Path, gpus: int) -> HardwareProbes:
    """Return what the probes found. `directory`: what is read from the disk; `gpus`: how many this run sees."""
    began = time.monotonic()
    notes: list[str] = []
    with _process("node", str(directory)) as process:
        node = _ended(process, "the node", notes)
    # At the same time: what GPUs share (power, cooling, the links to the host) shows only then.
    with ExitStack() as stack:
        started = [stack.enter_context(_process("gpu", str(index))) for index in range(gpus)]
        each = [_ended(process, f"GPU {index}", notes) for index, process in enumerate(started)]
    between: Mapping[str, Any] = {}
    if gpus > 1:
        with _process("gpus") as process:
            between = _ended(process, "between the GPUs", notes)
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


def probed_directory(settings: Settings, profile: Profile) -> Path:
    """Return the directory whose disk is read: the model's, or where there is none here, Python's environment."""
    if profile.loads_model:
        with suppress(BenchmarkError, OSError):
            return find_snapshot(settings)
    return Path(sys.prefix)


def serves_already(settings: Settings, profile: Profile) -> bool:
    """Return whether a server that somebody else started may have the GPUs: probes would disturb both."""
    return profile.engine == ENDPOINT and not settings.benchmark_endpoint_start


@contextmanager
def _process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run probes in a process, which is gone afterwards with all that it started, whatever happens here."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark.node.probes.measuring", *words],
        stdin=subprocess.PIPE,  # it ends when this closes: when this process is killed too
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def _ended(process: subprocess.Popen[bytes], what: str, notes: list[str]) -> Mapping[str, Any]:
    # Its standard input stays open, which communicate() would close.
    stdin, process.stdin = process.stdin, None
    try:
        out, err = (text.decode(errors="replace") for text in process.communicate(timeout=LIMIT_S))
    except subprocess.TimeoutExpired:
        notes.append(f"{what}: the probes did not end within {LIMIT_S} s.")
        return {}
    finally:
        process.stdin = stdin
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
