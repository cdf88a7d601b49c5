"""Measure what measuring costs, and how accurate its times are: three tables, on any machine, without a GPU.

1. Throughput of `continuous` with the same prompts, alternately with and without LoadGen, recorder and samples file.
2. An engine with exactly known delays, at several rates: the errors of TTFT and TPOT, at P50 and P99.
3. The same at rising rates: where the client saturates, and whether the run reports it (as mlperf-server does).

    python3 benchmarks/loadgen_overhead.py [--rounds 15] [--shape small] [--seconds 10] [--rates 10,100,1000]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.files import sample_writer
from benchmark.node.engines import continuous
from benchmark.node.interfaces import Conditions, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import make_scenario
from benchmark.node.run import RunRequest, run
from benchmark.profiles import Generation, load_profile
from benchmark.records import NodeResult
from benchmark.resolve import resolve
from benchmark.settings import ResolvedSettings, Settings
from benchmarks import workloads
from benchmarks.shapes import SHAPES, make_on_device

TTFT_MS, TPOT_MS, TOKENS = 20.0, 5.0, 16


def overhead(shape: str, rounds: int, queries: int) -> None:
    """Print the ratio of throughput with and without LoadGen and adapter, round by round and as a median."""
    loaded = make_on_device(shape, "float32", "cpu")
    work = workloads.chat(queries, loaded.model.config.vocab_size)
    settings = Settings(benchmark_device="cpu", benchmark_dtype="float32")
    generation = Generation(max_new_tokens=work.output_tokens, min_new_tokens=work.output_tokens)
    ratios = []
    with closing(continuous.Engine(settings, generation, {})) as engine:
        engine.start(loaded)
        workloads.run(engine, work.warm_up(queries), time.monotonic() + 600, at_once=True)
        for number in range(1, rounds + 1):
            # The order alternates, so that warming up and throttling favour neither.
            bare, through = 0.0, 0.0
            for which in ("bare", "driven") if number % 2 else ("driven", "bare"):
                if which == "bare":
                    bare = workloads.run(engine, work.queries(), time.monotonic() + 600, at_once=True).tokens_per_s
                else:
                    through = driven(engine, work)
            ratios.append(through / bare)
            print(f"round {number}: bare {bare:.0f} tokens/s, LoadGen {through:.0f} ({ratios[-1]:.1%})", flush=True)
    print(f"with LoadGen and adapter: median {statistics.median(ratios):.1%} of the bare engine's throughput "
          f"({min(ratios):.1%} to {max(ratios):.1%})\n", flush=True)  # fmt: skip


def driven(engine: continuous.Engine, work: workloads.Workload) -> float:
    """Return tokens/s of a workload that LoadGen issues all at once, with recorder and samples file."""
    prompts = tuple(query.prompt for query in work.queries())
    count = len(prompts)
    options = {"scenario": "Offline", "min_duration_ms": 0, "min_query_count": count, "max_query_count": count}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with sample_writer(place / "samples.jsonl") as writer:
            recorder = Recorder(engine, writer, now_ns(), lambda sample, done: None)
            outcome = make_scenario("loadgen", options).run(
                Workload(prompts, None, 0), recorder, Conditions(place, target_qps=1)
            )
    if outcome.loadgen is None or any(sample.error for sample in recorder.samples):
        raise SystemExit("a query failed, so there is no throughput to compare")
    return float(str(outcome.loadgen.results["result_tokens_per_second"]))


def fidelity(rates: list[float], seconds: float) -> None:
    """Print the errors of LoadGen's own TTFT and TPOT, and how late the simulated engine itself was."""
    print(f"known delays: TTFT {TTFT_MS:g} ms, TPOT {TPOT_MS:g} ms, {TOKENS} tokens; errors of LoadGen's figures in ms")
    heads = ("queries/s", "queries", "TTFT P50", "TTFT P99", "TPOT P50", "TPOT P99", "double P99")
    print(" ".join(f"{head:>10}" for head in heads))
    for rate in rates:
        result = _simulated(rate, seconds)
        if result.loadgen is None or result.metrics is None or result.metrics.ttft_from_issue_ms is None:
            raise SystemExit("nothing was measured")
        reported = {
            name: float(str(value)) / 1e6 for name, value in result.loadgen.results.items() if name.endswith("_ns")
        }
        errors = [reported[f"result_first_token_{p}.00_percentile_latency_ns"] - TTFT_MS for p in (50, 99)]
        errors += [reported[f"result_time_per_output_token_{p}.00_percentile_ns"] - TPOT_MS for p in (50, 99)]
        # The simulated engine's thread wakes late too: its own delay is not a measuring error.
        errors.append(result.metrics.ttft_from_issue_ms.p99 - TTFT_MS)
        row = " ".join(f"{error:10.3f}" for error in errors)
        print(f"{rate:10g} {result.metrics.queries.completed:10} {row}", flush=True)
    print()


def saturation(rates: list[float], seconds: float) -> None:
    """Print issue and report delays at rising rates, and the run's verdict on its client."""
    limits = [limit for limit in load_profile("mlperf-server").limits if "delay" in limit.metric]
    print("the client under load: delays in ms at P99, and the run's verdict")
    print(f"{'target q/s':>9} {'done q/s':>9} {'issue':>9} {'report':>9}  verdict on the client")
    for rate in rates:
        result = _simulated(rate, seconds, limits=[limit.model_dump() for limit in limits])
        metrics, verdict = result.metrics, result.verdict
        if verdict is None or not (metrics and metrics.qps and metrics.issue_delay_ms and metrics.report_delay_ms):
            raise SystemExit("nothing was measured")
        late = [reason for reason in verdict.reasons if "delay" in reason]
        row = f"{rate:9g} {metrics.qps:9.0f} {metrics.issue_delay_ms.p99:9.2f} {metrics.report_delay_ms.p99:9.2f}"
        print(f"{row}  {' '.join(late) or 'not the bottleneck'}", flush=True)
        if late:
            break


def _simulated(rate: float, seconds: float, **profile: Any) -> NodeResult:
    base = resolve({"benchmark_profile": "self-test", "benchmark_device": "cpu", "benchmark_target_qps": rate})
    changes = {
        "scenario": "loadgen",
        "scenario_options": {"scenario": "Server", "min_duration_ms": int(seconds * 1000), "min_query_count": 1},
        "engine_options": {"ttft_ms": TTFT_MS, "tpot_ms": TPOT_MS},
        "generation": {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS},
        "samples": None,
        "limits": [],
        **profile,
    }
    resolved = {"settings": base.settings.model_dump(), "profile": {**base.profile.model_dump(), **changes}}
    with tempfile.TemporaryDirectory() as directory, _quiet():
        return run(RunRequest("overhead", "here", ResolvedSettings.model_validate(resolved), Path(directory)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="small", choices=sorted(SHAPES))
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the first table")
    parser.add_argument("--queries", type=int, default=96, help="queries of each round")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each rate")
    parser.add_argument("--rates", default="10,100,1000")
    parser.add_argument("--rising", default="1000,2000,4000,6000,8000,12000,16000", help="rates of the third table")
    arguments = parser.parse_args()
    overhead(arguments.shape, arguments.rounds, arguments.queries)
    fidelity([float(rate) for rate in arguments.rates.split(",")], arguments.seconds)
    saturation([float(rate) for rate in arguments.rising.split(",")], min(arguments.seconds, 5))


if __name__ == "__main__":
    main()
