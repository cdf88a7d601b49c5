"""Measure what watching the node costs: the same prompts through `continuous`, alternately with and without it.

A model with random weights is made on the device; no network is needed. With a GPU, NVML is queried as in a run.

    python3 benchmarks/telemetry.py [--rounds 15] [--shape small] [--queries 96]
    python3 benchmarks/telemetry.py --device cuda --dtype bfloat16 --shape llama-3.1-8b --rounds 9 --queries 256
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.node.engines import continuous
from benchmark.node.watch.environment import validate_environment
from benchmark.node.watch.telemetry import Watch
from benchmark.profiles import Generation
from benchmark.records import Environment, Telemetry
from benchmark.settings import Settings
from benchmarks import workloads
from benchmarks.shapes import SHAPES, make_on_device

PATIENCE_S = 600


def throughput(engine: continuous.Engine, work: workloads.Workload) -> float:
    """Return tokens/s of the prompts, issued all at once."""
    return workloads.run(engine, work.queries(), time.monotonic() + PATIENCE_S, at_once=True).tokens_per_s


def watched(engine: continuous.Engine, work: workloads.Workload, seen: Environment) -> tuple[float, Telemetry | None]:
    """Return tokens/s while the node is watched, and the telemetry."""
    with tempfile.TemporaryDirectory() as directory:
        watch = Watch(Path(directory), seen)
        watch.idle()
        time.sleep(1)
        started_ns = time.monotonic_ns()
        watch.start(started_ns)
        rate = throughput(engine, work)
        watch.end(started_ns, time.monotonic_ns())
        return rate, watch.telemetry(None)


def compare(engine: continuous.Engine, work: workloads.Workload, seen: Environment, rounds: int) -> None:
    """Print each round's throughput with and without watching, its cost, and the medians."""
    ratios, reported = [], []
    for number in range(1, rounds + 1):
        # The order alternates, so that warming up and throttling favour neither.
        bare, rate, telemetry = 0.0, 0.0, None
        for which in ("bare", "watched") if number % 2 else ("watched", "bare"):
            if which == "bare":
                time.sleep(1)  # as long as watching waits for the idle baseline
                bare = throughput(engine, work)
            else:
                rate, telemetry = watched(engine, work, seen)
        ratios.append(rate / bare)
        line = f"round {number}: bare {bare:.0f} tokens/s, watched {rate:.0f} ({ratios[-1]:.1%})"
        if telemetry is not None:
            reported.append(telemetry)
            line += f"; cost {telemetry.cost_percent:.2f} % of a core, a tick every {telemetry.interval_ms:.0f} ms"
        print(line, flush=True)
    print(f"watched: median {statistics.median(ratios):.1%} of the throughput without "
          f"({min(ratios):.1%} to {max(ratios):.1%})")  # fmt: skip
    if reported:
        costs = [one.cost_percent for one in reported]
        print(f"cost: median {statistics.median(costs):.2f} % of a core ({min(costs):.2f} to {max(costs):.2f})")
        print(f"GPUs: {len(reported[-1].gpus)}; not watched: {reported[-1].note or 'nothing'}")
        for gpu in reported[-1].gpus:
            print(gpu.model_dump_json())
        if reported[-1].energy:
            print(reported[-1].energy.model_dump_json())


def main() -> None:
    """Make the model, warm it up and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--shape", default="small", choices=sorted(SHAPES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--queries", type=int, default=96, help="queries of each round")
    arguments = parser.parse_args()
    settings = Settings(benchmark_device=arguments.device, benchmark_dtype=arguments.dtype, benchmark_model="/none")
    seen = validate_environment(settings, "continuous")
    loaded = make_on_device(arguments.shape, arguments.dtype, "cuda:0" if arguments.device == "cuda" else "cpu")
    work = workloads.chat(arguments.queries, loaded.model.config.vocab_size)
    generation = Generation(max_new_tokens=work.output_tokens, min_new_tokens=work.output_tokens)
    with closing(continuous.Engine(settings, generation, {})) as engine:
        engine.start(loaded)
        workloads.run(engine, work.warm_up(arguments.queries), time.monotonic() + PATIENCE_S, at_once=True)
        compare(engine, work, seen, arguments.rounds)


if __name__ == "__main__":
    main()
