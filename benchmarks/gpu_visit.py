"""All that docs/performance.md measures on GPUs beside vLLM, on a machine that is there for a while: a command a step.

    python3 -m benchmarks.gpu_visit --vllm-dir DIRECTORY --output DIRECTORY [--minutes 25] [--gpus 0,1]

The most important comes first. A step for all GPUs runs alone, then each GPU takes the next step there is. None is
begun that the time left is too short for, and what runs at the end is ended. In --output, NAME.txt is what a step
printed, NAME.json its table, NAME/ what else it left; steps.json says what became of each.

  model       writes Llama-3.1-8B's shape with random weights, if --model is not there
  sequential  plain `generate` on one GPU and spread over two, by the playbook (needs two GPUs)
  against     `continuous`, then vLLM, asked by the engine `vllm` and by vLLM's own client, on one GPU: --loads
  families    tiny models of many families through the kernels on the GPU: attention used, tokens, cross-check
  quick       the default profile, with its probes
  other       `continuous` with --libraries before those that are installed, such as another torch and what is built for
              it; other-quick: quick
  kernels     the parts of a step by themselves
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
# Evenly spaced twice: both clients ask vLLM in turn.
LOADS = ("500/30@31", "2000/100@31.25", "even@25,25")
# What has failed on a GPU, or would have, comes first.
FAMILIES = (
    *("gpt2", "dbrx", "opt", "gpt_oss", "phi", "phi3", "glm4_moe", "hunyuan_v1_moe", "llama@256", "llama@96", "llama"),
    *("mixtral", "qwen3_moe", "olmoe", "gemma2", "gemma3"),
)
COLUMNS = {"step": 12, "GPUs": 4, "exit code": 9, "seconds": 7}
MODEL = "model"
STEPS = ("sequential", "against", "families", "quick", "other", "other-quick", "kernels", "long")
# Token ids above these belong to no prompt: Llama's special tokens.
RESERVED = 256
LONG_S = 600
POLL_S = 0.2
# For a step that is told to end: its servers, or its playbook with its nodes, end first.
END_S = 60


@dataclass(frozen=True)
class Step:
    """A command. It is begun only with `least_s` seconds left; `gpus`: 1, or 2 for all there are."""

    name: str
    words: Sequence[str]
    least_s: float
    gpus: int = 1
    libraries: str = ""
    """A directory that comes before what is installed."""


def steps(given: argparse.Namespace) -> list[Step]:
    """Return what is asked for and can be, in order."""
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
    # Offline takes about as long as a rate. An engine of ours is started for each kind of load; vLLM's is once.
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
    """Runs steps, on all GPUs at the same time, until they are done or the time is up."""

    def __init__(self, output: Path, gpus: Sequence[str], seconds: float) -> None:
        self._output, self._gpus = output, gpus
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._table = Table(COLUMNS, {"GPUs": ",".join(gpus)})
        output.mkdir(parents=True, exist_ok=True)

    def run(self, asked: Sequence[Step]) -> list[dict[str, Any]]:
        """Run them: the model and those for all GPUs one by one, then the others; return a row for each."""
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
        """End what runs, and begin nothing more."""
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
            row["note"] = f"not begun: it takes {step.least_s:.0f} s, and {left:.0f} are left"
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
        if step.gpus == 1:  # with all of them a step chooses itself
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
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where all that is found out goes")
    parser.add_argument("--vllm-dir", type=workloads.place, default=workloads.VLLM, help="vLLM's environment")
    parser.add_argument("--model", type=Path, default=Path("/dev/shm/llama"), help="a directory, made if it is missing")  # noqa: S108
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--gpus", default=os.environ.get("CUDA_VISIBLE_DEVICES", "0"), help="by nvidia-smi's numbers")
    parser.add_argument("--steps", default=",".join(STEPS), help="which of them")
    parser.add_argument(
        "--libraries", default="", help="a directory with other libraries, for the steps `other` and `other-quick`"
    )
    parser.add_argument("--loads", nargs="*", default=LOADS, help="as benchmarks/against_vllm.py has them")
    parser.add_argument("--leave-out", nargs="*", default=[], help="as benchmarks/against_vllm.py has it")
    parser.add_argument("--long", default="500/30@31", help="a load of the step `long`")
    parser.add_argument("--seconds", type=float, default=40, help="of each rate")
    parser.add_argument("--offline", type=int, default=1024, help="queries at once; 0: no Offline")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--shrink", type=int, default=1, help="shorter prompts and answers by this factor")
    given = parser.parse_args(words)
    if unknown := sorted({*given.steps.split(",")} - {*STEPS}):
        parser.error(f"--steps: {', '.join(unknown)} is none of {', '.join(STEPS)}")
    for name in ("output", "model"):
        setattr(given, name, getattr(given, name).expanduser().absolute())
    return given


def main() -> int:
    """Run the steps; 1 where one failed or was not begun."""
    given = parse()
    visit = Visit(given.output, given.gpus.split(","), given.minutes * 60)
    # No KeyboardInterrupt: however often it is pressed, each step ends what it started.
    signal.signal(signal.SIGINT, lambda *about: visit.end())
    rows = visit.run(steps(given))
    return int(any(row.get("exit code") != 0 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
