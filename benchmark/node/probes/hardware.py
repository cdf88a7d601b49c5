"""All probes of a node: first the node's own, then all GPUs at the same time, then what is between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
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
        node = process.answer("the node", notes)
    between: Mapping[str, Any] = {}
    with ExitStack() as stack:
        # At the same time: what GPUs share (power, cooling, the links to the host) shows only then.
        processes = [stack.enter_context(_process("gpu", str(index), str(gpus))) for index in range(gpus)]
        each = [process.answer(f"GPU {index}", notes) for index, process in enumerate(processes)]
        if gpus > 1 and all(each):
            store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "store"
            for process in processes:
                process.say(str(store))
            answers = [process.answer(f"between the GPUs, GPU {n}", notes) for n, process in enumerate(processes)]
            between = answers[0]
        elif gpus > 1:
            notes.append("What is between the GPUs was not probed: one of them did not answer.")
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


class _Process:
    """A process that probes. It and all that it started end when its standard input closes."""

    def __init__(self, *words: str) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.node.probes.measuring", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, line: str) -> None:
        """Give it a line; one that is gone is told by its missing answer."""
        with suppress(OSError):
            os.write(self._process.stdin.fileno(), f"{line}\n".encode())  # type: ignore[union-attr]

    def answer(self, what: str, notes: list[str]) -> Mapping[str, Any]:
        """Return its next line; nothing, and a note about `what` it probes, where none comes."""
        try:
            line = self._lines.get(timeout=LIMIT_S)
        except Empty:
            notes.append(f"{what}: the probes did not end within {LIMIT_S} s.")
            return {}
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
            notes.append(f"{what}: the probes ended with exit code {code}: {said[-1][:300]}")
            return {}
        found: Mapping[str, Any] = json.loads(line)
        notes += [f"{what}: {note}" for note in found["notes"]]
        return found

    def close(self) -> None:
        """End it, with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream:
                stream.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            # What a library prints is no answer.
            if line.startswith(b"{"):
                self._lines.put(line)
        self._lines.put(b"")


@contextmanager
def _process(*words: str) -> Iterator[_Process]:
    process = _Process(*words)
    try:
        yield process
    finally:
        process.close()


def _figures(found: Mapping[str, Any]) -> dict[str, Measured]:
    return {name: Measured(value=value, unit=unit) for name, (value, unit) in found.get("figures", {}).items()}
