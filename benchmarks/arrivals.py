"""Measure how punctual the scenario `schedule` is, compared with LoadGen's Server at the same rate, on any machine.

Both issue queries to an engine that only waits. Issue delay: time from when a query was due until the engine got it, in
milliseconds. Rounds alternate, so that other load on the machine favours neither. A trace replays LoadGen's own
schedule, so that both have the same times.

    python3 -m benchmarks.arrivals [--rate 100] [--seconds 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmark.columns import Columns
from benchmark.metrics import distribution
from benchmark.node.engines import simulated
from benchmark.node.interfaces import Conditions, Prompt, Workload, now_ns
from benchmark.node.recorder import Recorder
from benchmark.node.registry import make_scenario
from benchmark.profiles import Generation
from benchmark.records import Distribution, Sample
from benchmark.settings import Settings

TOKENS = 16
HEADS = ("scenario", "arrivals", "queries", "mean", "P50", "P99", "most")


def measured(name: str, options: dict[str, Any], prompts: tuple[Prompt, ...], rate: float, count: int) -> list[Sample]:
    """Run the scenario once and return its samples, in order of their number."""
    engine = simulated.Engine(Settings(), Generation(max_new_tokens=TOKENS), {"ttft_ms": 20, "tpot_ms": 2})
    engine.load()
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    try:
        with tempfile.TemporaryDirectory() as directory:
            conditions = Conditions(Path(directory), rate)
            outcome = make_scenario(name, options).run(Workload(prompts, count, 0), recorder, conditions)
            recorder.amend(outcome.scheduled_ns)
    finally:
        engine.close()
    return sorted(recorder.samples, key=lambda sample: sample.index)


def delays_ms(samples: list[Sample]) -> Distribution:
    """Return the distribution of issue delays in milliseconds."""
    columns = Columns.of(samples)
    found = distribution((columns.issued_ns - columns.scheduled_ns) / 1e6)
    if found is None:
        raise SystemExit("nothing was measured")
    return found


def main() -> None:
    """Measure both alternately and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100, help="queries per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rate, count = arguments.rate, int(arguments.rate * arguments.seconds)
    prompts = tuple(Prompt(f"p{number}", "", (number,)) for number in range(count))
    official = {"scenario": "Server", "min_duration_ms": 0, "min_query_count": count, "max_query_count": count}
    print(f"issue delay in ms at {rate:g} queries/s\n{' '.join(f'{head:>9}' for head in HEADS)}")
    for _ in range(arguments.rounds):
        driven = measured("loadgen", official, prompts, rate, count)
        row("LoadGen", "its own", driven)
        due = sorted(sample.scheduled_ns or 0 for sample in driven)
        traced = tuple(Prompt(f"t{n}", "", (n,), due_s=(at - due[0]) / 1e9) for n, at in enumerate(due))
        row("schedule", "the same", measured("schedule", {"arrivals": "trace"}, traced, rate, len(traced)))
        for arrivals in ("constant", "poisson", "gamma"):
            options = {"arrivals": arrivals, **({"burstiness": 0.25} if arrivals == "gamma" else {})}
            row("schedule", arrivals, measured("schedule", options, prompts, rate, count))


def row(scenario: str, arrivals: str, samples: list[Sample]) -> None:
    """Print one run's issue delays."""
    found = delays_ms(samples)
    figures = " ".join(f"{value:9.3f}" for value in (found.mean, found.p50, found.p99, found.max))
    print(f"{scenario:>9} {arrivals:>9} {len(samples):9} {figures}", flush=True)


if __name__ == "__main__":
    main()
