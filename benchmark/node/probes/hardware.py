"""All probes of a node: first the node's own, then all GPUs at the same time, then the links between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from pydantic import ValidationError

import benchmark
from benchmark.errors import BenchmarkError
from benchmark.node.model.load import find_snapshot
from benchmark.profiles import Profile
from benchmark.records.base import Record, Text
from benchmark.records.probes import FigureName, GpuProbes, HardwareProbes, Measured
from benchmark.served import ENDPOINT
from benchmark.settings import Settings

# Far longer than any step takes: a hanging GPU is reported, and the node continues.
LIMIT_S = 90
# Time for a killed process to end: one that is stuck in a driver or a disk does not, and is abandoned.
GONE_S = 5
BESIDE_A_SERVER = "The GPUs were not probed: a server that is already running uses them."
# On the PYTHONPATH of the processes, as this package may not be installed.
ROOT = Path(benchmark.__file__).parents[1]


def probe_hardware(directory: Path, gpus: int) -> HardwareProbes:
    """Return the probes' results. `directory`: what to read from the disk; `gpus`: how many this run sees."""
    began = time.monotonic()
    notes: list[str] = []
    with _process("node", str(directory)) as process:
        (node,) = _answers([process], ["the node"], notes)
    between: _Answer | None = None
    with ExitStack() as stack:
        # At the same time: only then do limits of shared power, cooling and host links show.
        processes = [stack.enter_context(_process("gpu", str(index), str(gpus))) for index in range(gpus)]
        each = _answers(processes, [f"GPU {index}" for index in range(gpus)], notes)
        if gpus > 1 and all(each):
            store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "store"
            for process in processes:
                process.say(str(store))
            between = _answers(processes, [f"between the GPUs, GPU {index}" for index in range(gpus)], notes)[0]
        elif gpus > 1:
            notes.append("The links between the GPUs were not probed: one of the GPUs did not answer.")
    return HardwareProbes(
        node=node.figures if node else {},
        gpus=tuple(
            GpuProbes(index=index, name=one.name, uuid=one.uuid, figures=one.figures) if one else GpuProbes(index=index)
            for index, one in enumerate(each)
        ),
        between_gpus=between.figures if between else {},
        notes=tuple(notes),
        seconds=round(time.monotonic() - began, 3),
    )


def probed_directory(settings: Settings, profile: Profile) -> Path:
    """Return the directory whose disk is read: the model's or, if there is none here, Python's environment."""
    if profile.loads_model:
        with suppress(BenchmarkError, OSError):
            return find_snapshot(settings)
    return Path(sys.prefix)


def serves_already(settings: Settings, profile: Profile) -> bool:
    """Return whether a server started by others may use the GPUs: probes and server would disturb each other."""
    return profile.engine == ENDPOINT and not settings.benchmark_endpoint_start


class _Answer(Record):
    """A process's output, see `measuring`: its place, figures, and notes on what could not be measured."""

    name: Text = ""
    uuid: Text = ""
    figures: dict[FigureName, Measured]
    notes: tuple[Text, ...]


class _Process:
    """A process that probes. It and its descendants end when its standard input closes."""

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
        self._answers: SimpleQueue[_Answer | None] = SimpleQueue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, line: str) -> None:
        """Send it a line; if it is gone, its missing answer will show that."""
        with suppress(OSError):
            os.write(self._process.stdin.fileno(), f"{line}\n".encode())  # type: ignore[union-attr]

    def answer(self, until: float) -> tuple[_Answer | None, str]:
        """Return its next answer; None, and the reason, if there is none before `until` (on the monotonic clock)."""
        try:
            answer = self._answers.get(timeout=max(until - time.monotonic(), 0))
        except Empty:
            return None, f"the probes did not end within {LIMIT_S} s."
        return (answer, "") if answer else (None, self._end())

    def close(self) -> None:
        """End it, with its descendants; a process that cannot be killed is abandoned."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GONE_S)
        self._reader.join(GONE_S)
        # Closing its output would wait for the thread that is still reading it.
        output = None if self._reader.is_alive() else self._process.stdout
        for stream in (self._process.stdin, output, self._errors):
            if stream:
                stream.close()

    def _end(self) -> str:
        """Return how a process without further output ended, as a sentence."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GONE_S)
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return "the probes were killed (SIGKILL): probably the node's memory, or the run's share of it, ran out."
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
        how = "closed their output" if code is None else f"ended with exit code {code}"
        return f"the probes {how}: {said[-1][:300]}"

    def _read(self) -> None:
        for line in self._process.stdout or ():
            # Other output of libraries is no answer.
            with suppress(ValidationError):
                self._answers.put(_Answer.model_validate_json(line))
        self._answers.put(None)


@contextmanager
def _process(*words: str) -> Iterator[_Process]:
    process = _Process(*words)
    try:
        yield process
    finally:
        process.close()


def _answers(processes: Sequence[_Process], places: Sequence[str], notes: list[str]) -> list[_Answer | None]:
    """Return the next answer of each, with one deadline for all; add a note for each that is missing."""
    until = time.monotonic() + LIMIT_S
    answers = []
    for process, place in zip(processes, places, strict=True):
        answer, why = process.answer(until)
        notes += [f"{place}: {note}" for note in ([why] if answer is None else answer.notes)]
        answers.append(answer)
    return answers
