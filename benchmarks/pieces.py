"""Measure how many tokens of a server's stream arrive in one piece, at Server rates.

    python3 -m benchmarks.pieces --model DIRECTORY --vllm-dir DIRECTORY --rates 1,16,31.25 --seconds 60
    python3 -m benchmarks.pieces --url http://127.0.0.1:8000 --name served --rates 1,4 --seconds 30

Starts vLLM through the engine `vllm`, or queries a running server. Each row is a run of LoadGen's Server scenario at
one rate: prompts of 60 to 2,500 random tokens, 128 tokens out. The limits in benchmark/records/sample.py are based on
these figures.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import metrics
from benchmark.columns import Columns
from benchmark.node.hosting import make_engine
from benchmark.node.interfaces import Conditions, Engine, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import make_scenario
from benchmark.profiles import Generation
from benchmark.settings import Settings
from benchmarks import workloads

HEADS = ("queries/s", "answers", "one piece", "coarse", "tokens a piece: P50", "P90", "P99", "max", "TPOT P50", "P99")


def main() -> None:
    """Start the engine, run each rate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="URL of a running server; empty: vLLM is started")
    parser.add_argument("--name", default="served", help="with --url: the model's name there")
    parser.add_argument("--model", default="", help="without --url: directory of the model")
    parser.add_argument("--vllm-dir", type=workloads.place, default=workloads.VLLM, help="vLLM's environment")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="token ids of the prompts are below this")
    parser.add_argument("--shrink", type=int, default=1, help="divide the lengths of prompts and answers by this")
    parser.add_argument("--rates", default="1,16,31.25", help="queries per second")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    work = workloads.summaries(512, arguments.vocabulary, arguments.shrink)
    generation = Generation(max_new_tokens=work.output_tokens, min_new_tokens=work.output_tokens)
    with tempfile.TemporaryDirectory() as name, closing(_engine(arguments, generation)) as engine:
        engine.directory = Path(name)
        print(engine.load().details.get("version"), flush=True)
        print(" | ".join(HEADS), flush=True)
        _run(engine, work, rates[0], 5, Path(name), "warm_up_")
        for rate in rates:
            samples = _run(engine, work, rate, arguments.seconds, Path(name), f"rate{rate:g}_")
            print(" | ".join(_row(rate, samples)), flush=True)


def _engine(arguments: argparse.Namespace, generation: Generation) -> Engine:
    settings: dict[str, Any] = {"benchmark_device": arguments.device, "benchmark_dtype": arguments.dtype}
    if arguments.url:
        settings |= {"benchmark_endpoint_urls": [arguments.url], "benchmark_endpoint_model": arguments.name}
    else:
        settings |= {"benchmark_model": arguments.model, "vllm_dir": arguments.vllm_dir}
    return make_engine("endpoint" if arguments.url else "vllm", Settings.model_validate(settings), generation, {})


def _run(
    engine: Engine, work: workloads.Workload, rate: float, seconds: float, directory: Path, prefix: str
) -> Columns:
    options = {"scenario": "Server", "probe_duration_ms": int(seconds * 1000), "probe_query_count": 1}
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    # LoadGen issues each prompt at least once, however long that takes.
    prompts = tuple(query.prompt for query in work.queries())[: max(1, round(rate * seconds))]
    conditions = Conditions(directory, rate, "probe", prefix)
    outcome = make_scenario("loadgen", options).run(Workload(prompts, None, 0), recorder, conditions)
    recorder.close()
    return Columns.of(recorder.amend(outcome.scheduled_ns))


def _row(rate: float, samples: Columns) -> list[str]:
    done = samples.completed
    completed = int(np.count_nonzero(done))
    if not completed:
        return [f"{rate:g}", "none"]
    per_piece = np.sort(samples.output_tokens[done] / np.maximum(samples.pieces[done], 1))
    at = [per_piece[int(completed * share)] for share in (0.5, 0.9, 0.99)]
    each = metrics.distribution(metrics.defined(metrics.tpots_ms(samples)))
    return [
        f"{rate:g}",
        f"{completed}",
        f"{np.count_nonzero(metrics.in_one_piece(samples)) / completed:.2%}",
        f"{np.count_nonzero(metrics.coarse(samples)) / completed:.2%}",
        *(f"{value:.3f}" for value in (*at, per_piece[-1])),
        *(f"{value:.1f} ms" for value in ((each.p50, each.p99) if each else ())),
    ]


if __name__ == "__main__":
    main()
