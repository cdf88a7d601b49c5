"""The project's own job on one node, by hand, on a model of a known shape with random weights: no network is asked.

Writes the model to a disk in shards, then runs `python3 -m benchmark run` on it with all that a run does (facts, idle
check, loading, warm-up, telemetry, energy, verdict): the profile quick, LoadGen's Offline and Server, and `busy`, which
is quick while another process holds memory of the GPU: it has to be refused.

    python3 -m benchmarks.whole_run [--dtype float16] [--rate 25] [--seconds 30] [--keep DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from benchmark.files import read_record
from benchmark.records import NodeResult
from benchmarks.shapes import SHAPES, make_on_device
from benchmarks.start import write_shards

ROOT = Path(__file__).resolve().parents[1]


HOLD = "import sys, torch; held = torch.ones(2**28, device='cuda'); print(flush=True); sys.stdin.read()"


def write_model(shape: str, dtype: str, device: str, directory: Path) -> None:
    """Write the model; in a process of its own, for this one must not hold the GPU while the job looks who does."""
    write_shards(make_on_device(shape, dtype, device).model, directory)


@contextmanager
def busy() -> Iterator[None]:
    """Hold memory of the GPU from another process."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if holder.stdout and holder.stdin:
            holder.stdout.readline()
            yield
            holder.stdin.close()


def profile(scenario: str, seconds: float, output_tokens: int, most_input_tokens: int) -> dict[str, Any]:
    """Return a profile of LoadGen's scenario with prompts of random tokens, short enough to wait for."""
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


def run(name: str, variables: dict[str, str], place: Path) -> NodeResult:
    """Run the job by hand, show what it says, and return its result."""
    sets = [word for key, value in variables.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "benchmark", "run", *sets]
    environment = {**os.environ, "NODE_NAME": name, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    place.mkdir()
    subprocess.run(command, cwd=place, env=environment, check=False)
    return read_record(next(place.rglob("mlperf_datacenter_*.json")), NodeResult)


def main() -> int:
    """Make the model, run the jobs, print what a stranger would ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.1-8b", choices=sorted(SHAPES))
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rate", type=float, default=25, help="queries/s of Server")
    parser.add_argument("--seconds", type=float, default=30, help="least of Offline and Server")
    parser.add_argument(
        "--offline-rate", type=float, default=40, help="what Offline is expected to reach, in queries/s"
    )
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--most-input-tokens", type=int, default=1300)
    parser.add_argument("--jobs", default="quick,Offline,Server,busy")
    parser.add_argument("--keep", type=Path, help="put the results there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        made_model = given.shape, given.dtype, given.device, place / "model"
        writer = multiprocessing.get_context("spawn").Process(target=write_model, args=made_model)
        writer.start()
        writer.join()
        if writer.exitcode:
            return 1
        common = {"benchmark_model": str(place / "model"), "benchmark_device": given.device}
        common["benchmark_dtype"] = given.dtype
        for job in given.jobs.split(","):
            variables = dict(common)
            if job not in ("quick", "busy"):
                path = place / f"{job}.yaml"
                made = profile(job, given.seconds, given.output_tokens, given.most_input_tokens)
                path.write_text(yaml.safe_dump(made), encoding="utf-8")
                rate = given.rate if job == "Server" else given.offline_rate
                variables |= {"benchmark_profile": str(path), "benchmark_target_qps": str(rate)}
            with busy() if job == "busy" else nullcontext():
                result = run("gpu", variables, place / job)
            seen, told = result.environment, result.telemetry
            for title, record in (("environment", seen), ("telemetry", told)):
                print(f"{title}: {json.dumps(record.model_dump(mode='json') if record else None)}", flush=True)
            if given.keep:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{job}.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
