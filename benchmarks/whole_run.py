"""Run the project's own job on one node by hand, on a model of a known shape with random weights, without a network.

Writes the model to the disk in shards, then runs `python3 -m benchmark run` on it with everything that a run does
(facts, idle check, loading, warm-up, telemetry, energy, verdict): the profile quick, LoadGen's Offline and Server, and
`busy`, which is quick while another process holds GPU memory and must be refused.

JOB@MOMENT is such a job during which another process takes all the GPU memory that is left: as soon as the stage
`loading` or `measuring` begins, or when the first `weights` are on the GPU. The job must fail with the reason, or need
no more memory.

    python3 -m benchmarks.whole_run [--dtype float16] [--rate 25] [--seconds 30] [--jobs quick,quick@weights]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmark.errors import EXIT_VALID
from benchmark.files import read_record
from benchmark.records import NodeResult
from benchmark.rundir import NODE_RESULTS
from benchmarks.shapes import SHAPES, make_on_device, write_model

ROOT = Path(__file__).resolve().parents[1]


HOLD = "import sys, torch; held = torch.ones(2**28, device='cuda'); print(flush=True); sys.stdin.read()"
# Reads a number of bytes from standard input, waits until others have taken that many, and takes the rest.
TAKE = """
import sys, torch
print(flush=True)
least = int(sys.stdin.readline())
before = torch.cuda.mem_get_info()[0]
while before - torch.cuda.mem_get_info()[0] < least:
    pass
held, size = [], 2**36
while size >= 2**21:
    try:
        held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        size //= 2
print(f"Another process holds {torch.cuda.memory_allocated() / 1e9:.1f} GB of the GPU.", file=sys.stderr, flush=True)
sys.stdin.read()
"""
# torch's compile processes notice only after some seconds that their parent is gone.
LEAVE_S = 15
# Per moment: the stage in the job's output, and the bytes that the job takes itself before the memory is filled.
MOMENTS = {"loading": ("loading", 0), "weights": ("loading", 2**32), "measuring": ("measuring", 0)}


def make_model(shape: str, dtype: str, device: str, directory: Path) -> None:
    """Write the model in a separate process: this one must not hold GPU memory when the job checks who does."""
    write_model(make_on_device(shape, dtype, device).model, directory)


@contextmanager
def busy() -> Iterator[Callable[[str], None]]:
    """Hold GPU memory from another process during the job."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if holder.stdout and holder.stdin:
            holder.stdout.readline()
            yield lambda line: None
            holder.stdin.close()


@contextmanager
def filling(moment: str) -> Iterator[Callable[[str], None]]:
    """Let another process take the GPU's memory at a moment; call the yielded function with each line of the job."""
    word, least = MOMENTS[moment]
    command = [sys.executable, "-c", TAKE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as taker:
        if taker.stdin and taker.stdout:
            taker.stdout.readline()
            asked = taker.stdin

            def hear(line: str) -> None:
                if line.rstrip().endswith(f" gpu: {word}"):
                    print(least, file=asked, flush=True)

            try:
                yield hear
            finally:
                taker.kill()


def profile(scenario: str, seconds: float, output_tokens: int, most_input_tokens: int) -> dict[str, Any]:
    """Return a short profile of LoadGen's scenario with prompts of random tokens."""
    least = max(1, most_input_tokens // 5)
    return {
        "name": scenario.lower(),
        "version": 1,
        "scenario": "loadgen",
        "scenario_options": {
            "scenario": scenario,
            "model": "llama3_1-8b",
            "min_duration_ms": int(seconds * 1000),
            "min_query_count": 1,
        },
        "engine": "continuous",
        "dataset": "synthetic",
        "dataset_options": {"input_tokens": [least, most_input_tokens], "prompts": 256},
        "generation": {"max_new_tokens": output_tokens, "min_new_tokens": output_tokens, "temperature": 0},
    }


def run(variables: dict[str, str], place: Path, hear: Callable[[str], None]) -> tuple[NodeResult, int]:
    """Run the job by hand, show its output, and return its result and exit code."""
    sets = [word for key, value in variables.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "benchmark", "run", *sets]
    environment = {**os.environ, "NODE_NAME": "gpu", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    place.mkdir()
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as job:
        for line in job.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            hear(line)
    return read_record(next(place.rglob(NODE_RESULTS)), NodeResult), job.returncode


def bore(result: NodeResult, code: int) -> bool:
    """Return whether a job whose GPU was filled reported that, or needed no more memory, so that no query failed."""
    if result.status == "complete" and result.metrics and not result.metrics.queries.failed:
        return True
    reasons = result.verdict.reasons if result.verdict else ()
    reported = " ".join([result.error or "", *reasons])
    return (
        code != EXIT_VALID and "The GPU's memory is full" in reported and not (result.verdict and result.verdict.valid)
    )


def left_in(place: Path) -> list[list[str]]:
    """Return the commands of processes that still run in a job's directory after some seconds."""
    there = [one for one in psutil.process_iter(["cwd", "cmdline"]) if one.info["cwd"] == str(place)]
    return [one.info["cmdline"] for one in psutil.wait_procs(there, timeout=LEAVE_S)[1]]


def main() -> int:
    """Make the model, run the jobs, and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rate", type=float, default=25, help="rate of Server in queries/s")
    parser.add_argument("--seconds", type=float, default=30, help="shortest duration of Offline and Server")
    parser.add_argument("--offline-rate", type=float, default=40, help="expected rate of Offline in queries/s")
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--most-input-tokens", type=int, default=1300)
    parser.add_argument("--jobs", default="quick,Offline,Server,busy")
    parser.add_argument("--keep", type=Path, help="copy the results to this directory")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        made_model = given.shape, given.dtype, given.device, place / "model"
        writer = multiprocessing.get_context("spawn").Process(target=make_model, args=made_model)
        writer.start()
        writer.join()
        if writer.exitcode:
            return 1
        common = {"benchmark_model": str(place / "model"), "benchmark_device": given.device}
        common["benchmark_dtype"] = given.dtype
        failed = 0
        for name in given.jobs.split(","):
            job, _, moment = name.partition("@")
            variables = dict(common)
            if job not in ("quick", "busy"):
                path = place / f"{job}.yaml"
                made = profile(job, given.seconds, given.output_tokens, given.most_input_tokens)
                path.write_text(yaml.safe_dump(made), encoding="utf-8")
                rate = given.rate if job == "Server" else given.offline_rate
                variables |= {"benchmark_profile": str(path), "benchmark_target_qps": str(rate)}
            began = time.monotonic()
            beside = filling(moment) if moment else busy() if job == "busy" else nullcontext(lambda line: None)
            with beside as hear:
                result, code = run(variables, place / name, hear)
            took, left = time.monotonic() - began, left_in(place / name)
            ended = (
                f"{result.status}, stage {result.stage}, exit code {code} after {took:.1f} s, processes left: {left}"
            )
            print(f"{name}: {ended}. {result.error or ''}", flush=True)
            failed += bool(left) or bool(moment and not bore(result, code))
            seen, reported = result.environment, result.telemetry
            for title, record in (("environment", seen), ("telemetry", reported)):
                print(f"{title}: {json.dumps(record.model_dump(mode='json') if record else None)}", flush=True)
            if given.keep:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{name}.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
