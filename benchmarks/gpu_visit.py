"""Repeat the GPU comparisons with vLLM in docs/performance.md on a machine that is available for a limited time.

    python3 -m benchmarks.gpu_visit --vllm-dir DIRECTORY --output DIRECTORY [--minutes 25] [--gpus 0,1]

Each step is a command; the most important comes first. Steps that need all GPUs run alone, then each GPU takes the
next step. A step is not started if too little time is left for it, and steps still running at the end are ended. In
--output, NAME.txt is a step's output, NAME.json its table, NAME/ its other files; steps.json has the result of each.

  model       writes Llama-3.1-8B's shape with random weights, if --model does not exist
  sequential  plain `generate` on one GPU and spread over two, by the playbook (needs two GPUs)
  against     `continuous`, then vLLM with the client of the engine `vllm` and with vLLM's own, on one GPU: --loads
  families    tiny models of many families through the kernels on the GPU: attention used, tokens, cross-check
  quick       the default profile, with its probes
  other       `continuous` with --libraries before the installed ones, such as another torch and packages built for it;
              other-quick: quick with them
  kernels     the single parts of a step
  long        `continuous` at --long for ten minutes
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.against_vllm import EVEN, OFFLINE, REST_S
from benchmarks.shapes import SHAPES
from benchmarks.table import Table

ROOT = Path(__file__).resolve().parents[1]
# The evenly spaced load is there twice: the two clients alternate.
LOADS = ("500/30@31", "2000/100@31.25", "even@25,25")
# Families that have failed on a GPU, or would have, come first.
FAMILIES = (
    *("gpt2", "dbrx", "opt", "gpt_oss", "phi", "phi3", "glm4_moe", "hunyuan_v1_moe", "llama@256", "llama@96", "llama"),
    *("mixtral", "qwen3_moe", "olmoe", "gemma2", "gemma3"),
)
COLUMNS = {"step": 12, "GPUs": 4, "exit code": 9, "seconds": 7}
MODEL = "model"
STEPS = ("sequential", "against", "families", "quick", "other", "other-quick", "kernels", "long")
# Number of highest token ids that prompts do not use: Llama's special tokens.
RESERVED = 256
LONG_S = 600
POLL_S = 0.2
# Seconds for a step to end after SIGTERM: its servers, or its playbook with the nodes, end first.
END_S = 60


@dataclass(frozen=True)
class Step:
    """A command. It is started only with `least_s` seconds left; `gpus`: 1, or 2 for all GPUs."""

    name: str
    words: Sequence[str]
    least_s: float
    gpus: int = 1
    libraries: str = ""
    """A directory of packages that come before the installed ones."""


def steps(given: argparse.Namespace) -> list[Step]:
    """Return the requested steps that can run here, in order."""
    python, kept = sys.executable, given.output
    how = ("--device", given.device, "--dtype", given.dtype)
    vocabulary = str(SHAPES[given.shape]["vocab_size"] - RESERVED)
    lengths = ("--vocabulary", vocabulary, "--shrink", str(given.shrink))
    which = ("--model", str(given.model), "--vllm-dir", given.vllm_dir, *how, *lengths)

    def against(name: str, engines: str, loads: Sequence[str], offline: int, seconds: float) -> tuple[str, ...]:
        asked = ("--engines", engines, "--loads", *loads, "--offline", str(offline), "--seconds", f"{seconds:g}")
        fields = ("--leave-out", *given.leave_out) if given.leave_out else ()
        return (python, "-m", "benchmarks.against_vllm", *which, *asked, *fields, "--json", str(kept / f"{name}.json"))

    quick = [f"benchmark_{name}={getattr(given, name)}" for name in ("model", "device", "dtype")]
    run_quick = (python, "-m", "benchmark", "run", *(word for setting in quick for word in ("--set", setting)))
    spread = ("--parts", "sequential", "--gpus", given.gpus, "--json", str(kept / "sequential.json"))
    # Offline takes about as long as a rate. Our engine is started for each kind of load, vLLM only once.
    kinds = [OFFLINE, *(load.partition("@")[0] for load in given.loads for rate in load.split(","))]
    by_its_client = (1 + len(given.leave_out)) * (1 + kinds.count(EVEN))
    loads_s = (given.seconds + REST_S) * (2 * len(kinds) + by_its_client)
    starts_s = 40 * (len(given.loads) + 1) + 300
    found = [
        Step("sequential", (python, "-m", "benchmarks.several_gpus", *which, *spread), 240, gpus=2),
        Step(
            "against",
            against("against", "continuous,vllm,client", given.loads, given.offline, given.seconds),
            starts_s + loads_s,
        ),
        Step("families", (python, "-m", "tests.architectures", *how, *FAMILIES), 400),
        Step("quick", run_quick, 60),
        Step(
            "other",
            against("other", "continuous", ["2000/100@31.25"], given.offline, given.seconds),
            *(80 + 2 * (given.seconds + REST_S), 1, given.libraries),
        ),
        Step("other-quick", run_quick, 60, 1, given.libraries),
        Step("kernels", (python, str(ROOT / "benchmarks/kernels.py")), 60),
        Step("long", against("long", "continuous", [given.long], 0, LONG_S), LONG_S + REST_S + 60),
    ]
    asked, count = given.steps.split(","), len(given.gpus.split(","))
    found = [step for step in found if step.name in asked and step.gpus <= count]
    if not given.libraries:
        found = [step for step in found if step.name not in ("other", "other-quick")]
    if not given.model.exists():
        found.insert(0, Step(MODEL, (python, "-m", "benchmarks.shapes", given.shape, str(given.model), *how), 60))
    return found


class Visit:
    """Runs steps, on all GPUs at the same time, until all are done or the time is over."""

    def __init__(self, output: Path, gpus: Sequence[str], seconds: float) -> None:
        self._output, self._gpus = output, gpus
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._table = Table(COLUMNS, {"GPUs": ",".join(gpus)})
        output.mkdir(parents=True, exist_ok=True)

    def run(self, asked: Sequence[Step]) -> list[dict[str, Any]]:
        """Run the model step and those for all GPUs one by one, then the others; return a row for each step."""
        alone = [step for step in asked if step.name == MODEL or step.gpus > 1]
        left = queue.SimpleQueue[Step]()
        for step in asked:
            if step not in alone:
                left.put(step)
        threads = [threading.Thread(target=self._take, args=(left, gpu)) for gpu in self._gpus]
        for step in alone:
            self._do(step, self._gpus if step.gpus > 1 else self._gpus[:1])
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._table.rows

    def end(self) -> None:
        """End the running steps, and start no more."""
        self._deadline = time.monotonic()

    def _take(self, left: queue.SimpleQueue[Step], gpu: str) -> None:
        with suppress(queue.Empty):
            while True:
                self._do(left.get_nowait(), [gpu])

    def _do(self, step: Step, gpus: Sequence[str]) -> None:
        began = time.monotonic()
        left = max(0.0, self._deadline - began)
        row: dict[str, Any] = {"step": step.name, "GPUs": ",".join(gpus)}
        if not left or left < step.least_s:
            row["note"] = f"not started: it needs {step.least_s:.0f} s, and {left:.0f} are left"
        else:
            row["exit code"] = self._call(step, gpus)
            row["seconds"] = time.monotonic() - began
        with self._lock:
            self._table.add(row)
            self._table.write(self._output / "steps.json")

    def _call(self, step: Step, gpus: Sequence[str]) -> int:
        place = self._output / step.name
        place.mkdir(exist_ok=True)
        path = [step.libraries, str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        if step.gpus == 1:  # a step with all GPUs selects them itself
            environment["CUDA_VISIBLE_DEVICES"] = gpus[0]
        with (self._output / f"{step.name}.txt").open("wb") as output:
            process = subprocess.Popen(
                step.words,
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            while process.poll() is None and time.monotonic() < self._deadline:
                time.sleep(POLL_S)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory for all results")
    parser.add_argument("--vllm-dir", type=workloads.place, default=workloads.VLLM, help="vLLM's environment")
    parser.add_argument("--model", type=Path, default=Path("/dev/shm/llama"), help="a directory, made if missing")  # noqa: S108
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--gpus", default=os.environ.get("CUDA_VISIBLE_DEVICES", "0"), help="by nvidia-smi's numbers")
    parser.add_argument("--steps", default=",".join(STEPS), help="steps to run")
    parser.add_argument(
        "--libraries", default="", help="directory with other libraries, for the steps `other` and `other-quick`"
    )
    parser.add_argument("--loads", nargs="*", default=LOADS, help="as in benchmarks/against_vllm.py")
    parser.add_argument("--leave-out", nargs="*", default=[], help="as in benchmarks/against_vllm.py")
    parser.add_argument("--long", default="500/30@31", help="load of the step `long`")
    parser.add_argument("--seconds", type=float, default=40, help="duration of each rate")
    parser.add_argument("--offline", type=int, default=1024, help="queries of Offline, all at once; 0: no Offline")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--shrink", type=int, default=1, help="divide the lengths of prompts and answers by this")
    given = parser.parse_args(words)
    if unknown := sorted({*given.steps.split(",")} - {*STEPS}):
        parser.error(f"--steps: {', '.join(unknown)} is not one of {', '.join(STEPS)}")
    for name in ("output", "model"):
        setattr(given, name, getattr(given, name).expanduser().absolute())
    return given


def main() -> int:
    """Run the steps; return 1 if one failed or was not started."""
    given = parse()
    visit = Visit(given.output, given.gpus.split(","), given.minutes * 60)
    # No KeyboardInterrupt: however often Ctrl-C is pressed, each step ends what it started.
    signal.signal(signal.SIGINT, lambda *about: visit.end())
    rows = visit.run(steps(given))
    return int(any(row.get("exit code") != 0 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
