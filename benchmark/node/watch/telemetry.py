"""Watch the node during a measurement, and summarise that. `sampler.py`, a process, does the sampling."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import benchmark
from benchmark.errors import InputError
from benchmark.files import read_ticks, write_atomic
from benchmark.node.watch.summary import SamplerReport, energy_of, sum_up
from benchmark.records import Environment, Metrics, Telemetry
from benchmark.rundir import of_repeat

TELEMETRY = "telemetry.jsonl"
# How long the run waits for the last tick if a driver is stuck.
PATIENCE_S = 5.0
# On the PYTHONPATH of the process, as this package may not be installed.
ROOT = Path(benchmark.__file__).parents[1]


class Watch:
    """Watches from `idle` on; the window is between `start` and `end`. No error here ends a run."""

    def __init__(self, directory: Path, seen: Environment | None, prefix: str = "") -> None:
        """Start the process, which does nothing yet: starting it takes half a second on a busy machine."""
        self.path = directory / f"{prefix}{TELEMETRY}"
        self.reported: SamplerReport | None = None
        self.note = ""
        self._window_ns = 0
        gpus = [(gpu.index, gpu.uuid) for gpu in seen.gpus] if seen else []
        self.gpus = len(gpus) if seen and seen.nvml is None else 0
        """Number of GPUs that are watched."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.node.watch.sampler", str(self.path), json.dumps(gpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )

    def idle(self) -> None:
        """Begin to watch; from here to the window no query may be in flight. With GPUs, wait for a first reading."""
        self._say("idle")
        if self.gpus and self._process.stdout:
            select.select([self._process.stdout], [], [], PATIENCE_S)

    def start(self, at_ns: int) -> None:
        """Set the beginning of the window, on the clock of the samples."""
        self._say(f"start {at_ns}")

    def end(self, started_ns: int, ended_ns: int) -> None:
        """Set the end of the window; returns once the last tick has been taken."""
        self._window_ns = ended_ns - started_ns
        try:
            out, _ = self._process.communicate(f"end {ended_ns}\n", timeout=PATIENCE_S)
            self.reported = SamplerReport.model_validate_json(out.strip().split("\n")[-1])
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self.note = "the process that watches the node did not finish"
        self.close()

    def close(self) -> None:
        """End the process, if it has not ended already."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def telemetry(self, metrics: Metrics | None) -> Telemetry | None:
        """Return the telemetry of the window; None if it was too short for two ticks."""
        reported = self.reported or SamplerReport(notes=(self.note,) if self.note else ())
        try:
            ticks = list(read_ticks(self.path)) if self.path.is_file() else []
        except InputError as error:
            return sum_up([], self._window_ns, reported.model_copy(update={"notes": (*reported.notes, str(error))}))
        watched = sum_up(ticks, self._window_ns, reported)
        if watched is None:
            return None
        return watched.model_copy(update={"energy": energy_of(ticks, self._window_ns, metrics)})

    def between(self, from_ns: int, to_ns: int, after_ns: int | None, number: int) -> Telemetry | None:
        """Return the telemetry between two times since `start`, for a window that another node measured.

        Idle power is unknown, as the other nodes warmed up before the window. Ticks up to `after_ns`, the end of the
        previous window, are left out. Windows after the first get their own files, like repeats.
        """
        reported = self.reported or SamplerReport(notes=(self.note,) if self.note else ())
        ticks = [
            tick.model_copy(update={"t_ns": tick.t_ns - from_ns})
            for tick in (read_ticks(self.path) if self.path.is_file() else ())
            if after_ns is None or tick.t_ns > after_ns
        ]
        if number > 1:
            lines = "".join(tick.model_dump_json() + "\n" for tick in ticks)
            write_atomic(self.path.with_name(of_repeat(TELEMETRY, number)), lines)
        watched = sum_up(ticks, to_ns - from_ns, reported)
        energy = energy_of(ticks, to_ns - from_ns, None)
        energy = energy and energy.model_copy(update={"idle_w": None})
        return watched and watched.model_copy(update={"energy": energy})

    def _say(self, line: str) -> None:
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()


def start_watch(directory: Path, seen: Environment | None, prefix: str = "") -> Watch | NoWatch:
    """Start to watch, into a file with `prefix`; if no process can be started, the node is not watched."""
    try:
        return Watch(directory, seen, prefix)
    except OSError as error:
        print(f"The node is not watched: {error.strerror}.", file=sys.stderr)
        return NoWatch()


class NoWatch:
    """Replaces Watch if benchmark_telemetry is off."""

    gpus = 0

    def idle(self) -> None:
        """Do nothing."""

    def start(self, at_ns: int) -> None:
        """Do nothing."""

    def end(self, started_ns: int, ended_ns: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def telemetry(self, metrics: Metrics | None) -> Telemetry | None:
        """Return nothing."""
        return None

    def between(self, from_ns: int, to_ns: int, after_ns: int | None, number: int) -> Telemetry | None:
        """Return nothing."""
        return None
